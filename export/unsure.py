"""Fitting the mark "unsure" for a stated rate of false alarms."""

import numpy as np

from cascade.rules import Unsure
from export.routings import widest_gap


def fit_unsure(distance: np.ndarray, submodels: np.ndarray, rate: float) -> Unsure:
    """Return the rule that marks about this rate of the pictures given, all of which are of a known class.

    Both limits, on the distance (N,) and on the highest answer of the submodels (N, K; NaN where not asked), are
    met by the same share of the pictures; that share is the greatest for which both together keep to the rate.
    """
    asked = ~np.isnan(submodels).all(axis=1)
    best = np.where(asked, np.where(np.isnan(submodels), 0, submodels).max(axis=1), 1)  # (N,)
    low, high = 0.0, rate
    for _ in range(20):
        share = (low + high) / 2
        rule = _at(distance, best, share, rate)
        low, high = (share, high) if (rule.score(distance, submodels) > 1).mean() <= rate else (low, share)
    return _at(distance, best, low, rate)


def _at(distance: np.ndarray, best: np.ndarray, share: float, rate: float) -> Unsure:
    rank = int(share * len(distance))
    far = np.sort(distance)[::-1]
    weak = np.sort(best)
    # Between the last picture that is marked and the first that is not; the farthest of all gets a little air.
    limit = (far[rank - 1] + far[rank]) / 2 if rank else 1.02 * far[0]
    below = (weak[rank - 1] + weak[rank]) / 2 if rank else 0.9 * weak[0]
    return Unsure(
        distance_above=float(limit),
        submodels_below=min(0.999, widest_gap(best, float(below))),
        false_alarm_rate=rate,
    )
