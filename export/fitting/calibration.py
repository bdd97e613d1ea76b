"""Calibration: from a model's logits to calibrated probabilities, fitted on validation pictures."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression

from cascade.rules.distance_correction import AS_MEASURED, DistanceCorrection
from cascade.rules.probabilities import TINY, logsumexp, softmax

_HEAVIEST = 1.0  # of an untrained network all energies are alike, and more would multiply their rounding


@dataclass(frozen=True)
class Calibrators:
    """The main model's temperature and corrected distance, and slopes and intercepts (K,) of Platt scaling."""

    temperature: float
    slopes: np.ndarray
    intercepts: np.ndarray
    distance: DistanceCorrection = AS_MEASURED

    def main(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities (N, K) of the main model's logits."""
        return softmax(logits, self.temperature)

    def submodels(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities (N, K) of the submodels' logits; NaN stays NaN."""
        return expit(logits * self.slopes + self.intercepts)


def fit_calibrators(
    main_logits: np.ndarray, distance: np.ndarray, submodel_logits: np.ndarray, targets: np.ndarray
) -> Calibrators:
    """Return calibrators fitted on logits (N, K) of both stages, distances (N,) and class indices (N,)."""
    pairs = [fit_platt(column, targets == label) for label, column in enumerate(submodel_logits.T)]
    slopes, intercepts = np.array(pairs).T
    correction = fit_distance_correction(distance, main_logits)
    return Calibrators(fit_temperature(main_logits, targets), slopes, intercepts, correction)


def fit_distance_correction(distance: np.ndarray, logits: np.ndarray) -> DistanceCorrection:
    """Return the correction with which the distance (N,) and the energy of logits (N, K) count alike.

    Either one's unit is what lies between the median picture and the one in six that is most unlike the others.
    """
    energy = logsumexp(logits)  # (N,)
    middle, little = np.quantile(energy, [0.5, 1 / 6])
    usual, far = np.quantile(np.log(np.maximum(distance, TINY)), [0.5, 5 / 6])
    weight = min((far - usual) / (middle - little), _HEAVIEST) if middle > little else 0.0
    return DistanceCorrection(energy=float(middle), weight=float(weight))


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature with the lowest log loss, within [0.05, 20] (Guo et al., arXiv 1706.04599)."""
    exact = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(exact / np.exp(log_temperature), axis=1)
        return float(-np.take_along_axis(scaled, targets[:, None], axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def fit_platt(logits: np.ndarray, is_class: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of a logistic curve over logits (N,), with Platt's smoothed targets.

    The targets are (n+ + 1) / (n+ + 2) and 1 / (n- + 2) (Platt 1999), so that separable data give a finite curve.
    """
    positives, negatives = int(is_class.sum()), int((~is_class).sum())
    chance = np.where(is_class, (positives + 1) / (positives + 2), 1 / (negatives + 2))  # (N,)
    column = logits.astype(np.float64)[:, None]
    curve = LogisticRegression(C=np.inf).fit(
        np.concatenate([column, column]),
        np.repeat([1, 0], len(chance)),
        sample_weight=np.concatenate([chance, 1 - chance]),
    )
    return float(curve.coef_[0, 0]), float(curve.intercept_[0])
