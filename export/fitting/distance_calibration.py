"""Fitting the calibration by distance: how fast probabilities soften for pictures unlike those of training."""

import numpy as np
from scipy.optimize import minimize_scalar

from cascade.rules.distance_calibration import DistanceCalibration, soften
from cascade.rules.probabilities import TINY

_STEEPEST = 20.0


def fit_distance_calibration(
    probabilities: np.ndarray, distance: np.ndarray, targets: np.ndarray, start: float
) -> DistanceCalibration:
    """Return the calibration with the lowest log loss of final probabilities (N, K), softened from ``start`` on.

    Some of the pictures must be unlike those of training, or nothing tells how fast accuracy falls with the distance
    (N,): pictures made worse do (Tomani et al., arXiv 2012.10988), and so do those of a source never trained on.
    """
    exact = np.maximum(probabilities.astype(np.float64), TINY)
    true = np.arange(len(targets)), targets

    def loss(log_slope: float) -> float:
        slope = np.expm1(log_slope)
        softened = soften(exact, DistanceCalibration(start=start, slope=slope).temperature(distance))
        return float(-np.log(softened[true]).mean())

    best = minimize_scalar(loss, bounds=(0, np.log1p(_STEEPEST)), method="bounded").x
    # The search never tries the end of its bounds itself.
    slope = 0.0 if loss(0.0) <= loss(best) else float(np.expm1(best))
    return DistanceCalibration(start=start, slope=round(slope, 4))
