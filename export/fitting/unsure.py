"""Fitting the mark "unsure" for a stated rate of false alarms."""

import numpy as np

from cascade.rules.unsure import Unsure, best_answers


def fit_unsure(distance: np.ndarray, submodels: np.ndarray, rate: float) -> Unsure:
    """Return the rule that marks about this rate of the pictures given, all of which are of a known class.

    Both limits, on the distance (N,) and on the highest answer of the submodels (N, K; NaN where not asked), are
    met by the same number of the pictures; it is the greatest for which both together keep to the rate. At most half
    of those that submodels were asked about are marked by their answer.
    """
    far = np.sort(distance)[::-1]
    weak = np.sort(best_answers(submodels)[~np.isnan(submodels).all(axis=1)])
    rules = [_at(far, weak, rank, rate) for rank in range(int(rate * len(distance)) + 1)]
    allowed = [rule for rule in rules if (rule.score(distance, submodels) > 1).mean() <= rate]
    return allowed[-1]


def _at(far: np.ndarray, weak: np.ndarray, rank: int, rate: float) -> Unsure:
    # Between the last picture that is marked and the first that is not; beyond all pictures there is a little air.
    limit = (far[rank - 1] + far[rank]) / 2 if rank else 1.02 * far[0]
    weak = weak if len(weak) else np.zeros(1)
    rank = min(rank, len(weak) // 2)
    below = (weak[rank - 1] + weak[rank]) / 2 if rank else 0.9 * weak[0]
    return Unsure(distance_above=float(limit), submodels_below=min(0.999, float(below)), false_alarm_rate=rate)
