"""Thresholds: where to cut scores so that a share of them is below, with no score next to the cut."""

from typing import Annotated

import msgspec
import numpy as np

EVERYTHING = 1.01  # just over 1: every score is below it
Threshold = Annotated[float, msgspec.Meta(ge=0, le=EVERYTHING)]

_GAP = 2e-4  # well over the rounding error of a probability


def at_share(scores: np.ndarray, share: float) -> float:
    """Return the threshold below which about this share of the scores (N,) is."""
    count = round(share * len(scores))
    if count == len(scores):
        return EVERYTHING
    lowest = np.concatenate([[0.0], np.sort(scores)])
    return float(np.clip((lowest[count] + lowest[count + 1]) / 2, 0, EVERYTHING))


def at_count(ordered: np.ndarray, count: int) -> float:
    """Return the threshold below which ``count`` of the ascending scores (N,) are.

    Below the threshold for all N of them there is no room for a much higher score that was not among them.
    """
    if count == 0:
        return 0.0
    if count == len(ordered):
        return float(min(ordered[-1] + _GAP, EVERYTHING))
    return float((ordered[count - 1] + ordered[count]) / 2)


def in_a_gap(scores: np.ndarray, threshold: float) -> float:
    """Return a threshold in the middle of a gap between two scores, with no more scores below it than before.

    The gap is the nearest one that is wide enough among the next 1% of the scores, or else the widest of these.
    """
    ordered = np.sort(scores)
    count = int(np.searchsorted(ordered, threshold))
    if count in (0, len(ordered)):
        return threshold
    ranks = np.arange(count, max(0, count - max(2, len(ordered) // 100)), -1)
    widths = ordered[ranks] - ordered[ranks - 1]
    rank = ranks[int((widths >= _GAP).argmax()) if (widths >= _GAP).any() else int(widths.argmax())]
    return float((ordered[rank - 1] + ordered[rank]) / 2)
