"""The distance of a picture from the classes: how unlike the training pictures its features are."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

MOST_DIRECTIONS = 256
_PICTURES_PER_DIRECTION = 10


@dataclass(frozen=True)
class ClassDistances:
    """Class means (K, D) and a shared covariance: variances (R,) in R directions (D, R), ``floor`` in all others."""

    means: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    floor: float


def fit_distances(features: np.ndarray, targets: np.ndarray) -> ClassDistances:
    """Fit the Mahalanobis distance (Lee et al., arXiv 1807.03888) on training features (N, D).

    The covariance within the classes keeps its main directions, at most one per ten pictures. In all other directions
    the variance is the same: a few hundred pictures determine no more, and a few directions take little space.
    """
    exact = features.astype(np.float64)
    means = np.stack([exact[targets == label].mean(axis=0) for label in range(int(targets.max()) + 1)])  # (K, D)
    residuals = exact - means[targets]
    variances, directions = _principal(residuals)

    width = features.shape[1]
    kept = int(np.clip(len(features) // _PICTURES_PER_DIRECTION, 1, min(MOST_DIRECTIONS, width - 1)))
    rest = float(variances[:-kept].sum()) / (width - kept)
    floor = max(rest, 1e-6 * float(variances[-1]), 1e-9)
    return ClassDistances(means, directions[:, -kept:], np.maximum(variances[-kept:], floor), floor)


def _principal(residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variances (R,) of residuals (N, D), ascending, and their directions (D, R); R is at most D."""
    count, width = residuals.shape
    if count >= width:
        return np.linalg.eigh(residuals.T @ residuals / count)
    # Fewer pictures than features span few directions: the covariance (D, D) of a wide network is never needed.
    _, spread, directions = np.linalg.svd(residuals, full_matrices=False)  # descending
    return spread[::-1] ** 2 / count, directions[::-1].T.copy()


class DistanceGraph(nn.Module):
    """Features (N, D) to the squared distance from the nearest class, divided by D, (N,): about 1 in training."""

    means: torch.Tensor
    projected: torch.Tensor
    directions: torch.Tensor
    excess: torch.Tensor

    def __init__(self, fitted: ClassDistances) -> None:
        super().__init__()
        self.floor = fitted.floor
        parts = {
            "means": fitted.means,
            "projected": fitted.means @ fitted.directions,
            "directions": fitted.directions,
            "excess": 1 / fitted.variances - 1 / fitted.floor,
        }
        for name, value in parts.items():
            self.register_buffer(name, torch.from_numpy(value).float())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the distances."""
        apart = (features[:, None] - self.means).square().sum(dim=2) / self.floor  # (N, K)
        along = ((features @ self.directions)[:, None] - self.projected).square()  # (N, K, R)
        squared = apart + (along * self.excess).sum(dim=2)  # (N, K)
        return squared.min(dim=1).values / features.shape[1]


def distances(fitted: ClassDistances, features: torch.Tensor) -> np.ndarray:
    """Return the distances (N,) of features (N, D)."""
    graph = DistanceGraph(fitted)
    with torch.inference_mode():
        return torch.cat([graph(part) for part in features.split(256)]).numpy()
