"""Fitting the "unsure" mark for a given false-alarm rate."""

import msgspec
import numpy as np
from scipy.optimize import brentq

from cascade.rules.unsure import Unsure, best_answers

MOST_UNSURE = 0.9  # a first probability above it and the mark would contradict each other


def fit_unsure(distance: np.ndarray, submodels: np.ndarray, rate: float) -> Unsure:
    """Return the rule that marks at most this rate of the given pictures, all of which are of a known class.

    Each of the two limits, on the distance (N,) and on the highest submodel probability (N, K; NaN where not asked),
    marks the same number of pictures: the largest for which both together stay within the rate. The submodels mark
    at most half of the pictures that they were asked about.
    """
    farthest = np.sort(distance)[::-1]
    weakest = np.sort(best_answers(submodels)[~np.isnan(submodels).all(axis=1)])
    rules = [_rule_at(farthest, weakest, rank, rate) for rank in range(int(rate * len(distance)) + 1)]
    allowed = [rule for rule in rules if (rule.score(distance, submodels) > 1).mean() <= rate]
    return allowed[-1]


def with_deserved(mark: Unsure, probabilities: np.ndarray, targets: np.ndarray) -> Unsure:
    """Return the rule with the highest probability that marked answers deserve, of those (N, K) about N pictures.

    With it their mean first probability is the share of them that is right, counted as (right + 1) / (N + 2); it is
    at most ``MOST_UNSURE``.
    """
    first = probabilities.max(axis=1)  # (N,)
    right = int((probabilities.argmax(axis=1) == targets).sum())
    deserved = (right + 1) / (len(first) + 2)

    def mean_below(limit: float) -> float:
        return float(np.minimum(first, limit).mean())

    if len(first) and mean_below(MOST_UNSURE) > deserved:
        limit = brentq(lambda limit: mean_below(limit) - deserved, 0.0, MOST_UNSURE)
    else:
        limit = MOST_UNSURE
    return msgspec.structs.replace(mark, highest_probability=round(max(limit, 1e-3), 4))


def _rule_at(farthest: np.ndarray, weakest: np.ndarray, rank: int, rate: float) -> Unsure:
    # Halfway between the last marked picture and the first unmarked one; with none marked, a little beyond them all.
    limit = (farthest[rank - 1] + farthest[rank]) / 2 if rank else 1.02 * farthest[0]
    weakest = weakest if len(weakest) else np.zeros(1)
    rank = min(rank, len(weakest) // 2)
    below = (weakest[rank - 1] + weakest[rank]) / 2 if rank else 0.9 * weakest[0]
    return Unsure(distance_above=float(limit), submodels_below=min(0.999, float(below)), false_alarm_rate=rate)
