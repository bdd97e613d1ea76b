"""Prediction sets with a coverage guarantee: split conformal prediction, as MAPIE's LAC method."""

import numpy as np

COVERAGES = (0.9, 0.95, 0.99)


def conformal_limit(probabilities: np.ndarray, targets: np.ndarray, coverage: float) -> float:
    """Return the highest score of a class that is in the set, in [0, 1], from pictures that nothing was fitted on.

    The score of a class is 1 minus its probability (Sadinle et al., arXiv 1609.00451). The limit is the
    ceil((N + 1) coverage)-th smallest score of a true class, or 1 if N is too small for the coverage. The set of a
    new picture from the same distribution contains its true class with at least this probability.
    """
    scores = np.sort(1 - probabilities[np.arange(len(targets)), targets])  # (N,)
    rank = int(np.ceil((len(scores) + 1) * coverage))
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


def prediction_sets(probabilities: np.ndarray, limit: float) -> np.ndarray:
    """Return which classes are in each picture's set, (N, K) bool; the most likely class always is."""
    within = 1 - probabilities <= limit
    within[np.arange(len(within)), probabilities.argmax(axis=1)] = True
    return within


def coverage_and_size(probabilities: np.ndarray, targets: np.ndarray, limit: float) -> tuple[float, float]:
    """Return the share of the sets that contain the true class (N,), and the mean number of classes per set."""
    sets = prediction_sets(probabilities, limit)
    return float(sets[np.arange(len(targets)), targets].mean()), float(sets.sum(axis=1).mean())
