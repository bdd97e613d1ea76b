"""The distance from the classes."""

import numpy as np
import pytest
import torch

from export.graphs.distance import MOST_DIRECTIONS, distances, fit_distances


def features(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % 3
    spread = np.linspace(0.1, 3, 40)
    return (np.eye(3, 40)[targets] * 20 + rng.normal(size=(count, 40)) * spread).astype(np.float32), targets


def test_with_all_directions_it_is_the_mahalanobis_distance() -> None:
    seen, targets = features(900, 0)
    fitted = fit_distances(seen, targets)
    assert fitted.directions.shape == (40, 39)  # the last one is its own mean of the rest
    residuals = seen - fitted.means[targets]
    inverse = np.linalg.inv(residuals.T @ residuals / len(residuals))
    new, _ = features(50, 1)
    apart = new[:, None] - fitted.means  # (N, K, D)
    expected = np.einsum("nkd,de,nke->nk", apart, inverse, apart).min(axis=1) / 40
    assert distances(fitted, torch.from_numpy(new)) == pytest.approx(expected, rel=1e-3)


def test_training_pictures_lie_at_about_one_and_others_far_away() -> None:
    seen, targets = features(900, 0)
    fitted = fit_distances(seen, targets)
    assert distances(fitted, torch.from_numpy(seen)).mean() == pytest.approx(1, abs=0.05)
    # Features of the same length, but in directions in which training pictures do not vary.
    others = np.zeros((5, 40), dtype=np.float32)
    others[:, :5] = 20 * np.eye(5)
    others[:3] *= -1
    assert (distances(fitted, torch.from_numpy(others)) > 5).all()


def test_few_pictures_give_few_directions_and_finite_distances() -> None:
    seen, targets = features(24, 0)
    fitted = fit_distances(seen, targets)
    assert fitted.directions.shape == (40, 2)
    assert np.isfinite(distances(fitted, torch.from_numpy(seen))).all()
    assert MOST_DIRECTIONS > 2


@pytest.mark.parametrize("count", [6, 24, 39, 40, 41])
def test_it_is_the_same_by_the_covariance_and_without_it_where_features_outnumber_pictures(count: int) -> None:
    seen, targets = features(count, 0)
    fitted = fit_distances(seen, targets)
    residuals = seen - fitted.means[targets]
    variances, _ = np.linalg.eigh(residuals.T @ residuals / count)
    kept = fitted.directions.shape[1]
    assert fitted.variances == pytest.approx(variances[-kept:], rel=1e-4)
    assert fitted.floor == pytest.approx(variances[:-kept].mean(), rel=1e-4)
    assert fitted.directions.T @ fitted.directions == pytest.approx(np.eye(kept), abs=1e-9)
    along = residuals @ fitted.directions
    assert (along**2).mean(axis=0) == pytest.approx(fitted.variances, rel=1e-4)
