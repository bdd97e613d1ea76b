"""Metrics of labelled pictures: accuracy with intervals, calibration error, confusion."""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

from cascade.rules.probabilities import top_two

ECE_BINS = 15
WIDE = 0.05  # span of an interval that is shown as wide
SEED_GAP = 0.2  # two probabilities closer than this are a doubtful answer in the seed score

Interval = Callable[[int, int], tuple[float, float]]  # of hits and their total

_HALVINGS = 50  # of an interval from 0 to 1, down to the precision of its ends


def top_k_hits(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the true class (N,) is first, and whether it is among the first two, each (N,) bool."""
    order = top_two(probabilities)  # (N, 2)
    first = order[:, 0] == targets
    return first, first | (order[:, 1] == targets)


def wilson_interval(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson 1927), which is within [0, 1]."""
    if total == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = hits / total
    centre = share + z * z / (2 * total)
    spread = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return (float((centre - spread) / scale), float((centre + spread) / scale))


def is_wide(interval: tuple[float, float]) -> bool:
    """Return whether an interval says little: it spans more than five points, as that of 90% of 500 pictures does."""
    return interval[1] - interval[0] > WIDE


def exact_interval(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper and Pearson 1934): it holds at least as often as it promises."""
    tail = (1 - confidence) / 2
    counts = np.arange(1, total + 1)
    # (total + 1,) logarithms of the number of ways to have 0, 1, 2 ... hits
    ways = np.concatenate([[0.0], np.cumsum(np.log(counts[::-1]) - np.log(counts))])

    def lowest(at_least: int) -> float:
        """Return the share at which so many hits or more have the probability ``tail``."""
        low, high, number = 0.0, 1.0, np.arange(at_least, total + 1)
        for _ in range(_HALVINGS):
            share = (low + high) / 2
            powers = ways[at_least:] + number * np.log(share) + (total - number) * np.log1p(-share)
            low, high = (share, high) if np.exp(powers).sum() < tail else (low, share)
        return low

    lower = lowest(hits) if hits else 0.0
    upper = 1 - lowest(total - hits) if hits < total else 1.0  # by the same for misses
    return (lower, upper)


def share_with_interval(name: str, hits: np.ndarray, interval: Interval = wilson_interval) -> dict[str, Any]:
    """Return the share of hits (N,) bool under a name, None if there are none to count, and its 95% interval."""
    share = float(hits.mean()) if hits.size else None
    return {name: share, f"{name}_interval": interval(int(hits.sum()), hits.size)}


def reliability(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, mean confidence and accuracy of each of ``ECE_BINS`` equal-width bins of the top probability.

    Each array is (ECE_BINS,); an empty bin has count 0 and NaN elsewhere.
    """
    confidence = probabilities.max(axis=1)  # (N,)
    hits, _ = top_k_hits(probabilities, targets)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    counts = np.bincount(bins, minlength=ECE_BINS)
    divisor = np.where(counts == 0, np.nan, counts)
    mean_confidence = np.bincount(bins, weights=confidence, minlength=ECE_BINS) / divisor
    accuracy = np.bincount(bins, weights=hits, minlength=ECE_BINS) / divisor
    return counts, mean_confidence, accuracy


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over ``ECE_BINS`` bins (Guo et al., arXiv 1706.04599)."""
    counts, confidence, accuracy = reliability(probabilities, targets)
    return float(np.nansum(counts * np.abs(confidence - accuracy)) / max(1, counts.sum()))


def confusion(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return counts (K, K), true classes in rows, most likely classes in columns."""
    classes = probabilities.shape[1]
    pairs = targets * classes + top_two(probabilities)[:, 0]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def seed_score(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean credit of the answers, in [0, 1], by the score of the seed project.

    A clear answer gets 1 if the first class is true, else 0. A doubtful answer, whose two probabilities differ by less
    than ``SEED_GAP``, gets 0.8 if the first class is true and 0.6 if the second is.
    """
    two = np.sort(probabilities, axis=1)[:, -2:]  # (N, 2)
    doubtful = two[:, 1] - two[:, 0] < SEED_GAP
    first, either = top_k_hits(probabilities, targets)
    return float(np.where(doubtful, 0.8 * first + 0.6 * (either & ~first), first).mean())


def accuracy_summary(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float | tuple[float, float]]:
    """Return ``top1``, ``top2``, their 95% Wilson intervals, ``ece`` and ``seed_score`` of probabilities (N, K)."""
    first, two = top_k_hits(probabilities, targets)
    return {
        "top1": float(first.mean()),
        "top1_interval": wilson_interval(int(first.sum()), len(targets)),
        "top2": float(two.mean()),
        "top2_interval": wilson_interval(int(two.sum()), len(targets)),
        "ece": expected_calibration_error(probabilities, targets),
        "seed_score": seed_score(probabilities, targets),
    }


def area_under_roc(negatives: np.ndarray, positives: np.ndarray) -> float:
    """Return the probability that a positive's score (M,) is above a negative's (N,); a tie counts half."""
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left") + np.searchsorted(ordered, positives, side="right")
    return float(below.mean() / (2 * len(negatives)))
