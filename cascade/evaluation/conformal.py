"""Answer sets with a guarantee: split conformal prediction, the score and quantile as in MAPIE's LAC method."""

import numpy as np

COVERAGES = (0.9, 0.95, 0.99)


def conformal_limit(probabilities: np.ndarray, targets: np.ndarray, coverage: float) -> float:
    """Return how improbable a class may be and still be in the set, in [0, 1], from pictures not fitted on.

    The score of a picture is one less the probability of its true class (Sadinle et al., arXiv 1609.00451); the
    limit is the ceil((N + 1) coverage)-th smallest score, or 1 where N is too small for the coverage. The set of a
    further picture of the same kind holds its true class with at least that probability.
    """
    scores = np.sort(1 - probabilities[np.arange(len(targets)), targets])  # (N,)
    rank = int(np.ceil((len(scores) + 1) * coverage))
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


def answer_sets(probabilities: np.ndarray, limit: float) -> np.ndarray:
    """Return which classes are in each picture's set, (N, K) bool; the most likely one always is."""
    within = 1 - probabilities <= limit
    within[np.arange(len(within)), probabilities.argmax(axis=1)] = True
    return within


def coverage_and_size(probabilities: np.ndarray, targets: np.ndarray, limit: float) -> tuple[float, float]:
    """Return the share of the sets that hold the true class (N,), and the mean number of classes in a set."""
    sets = answer_sets(probabilities, limit)
    return float(sets[np.arange(len(targets)), targets].mean()), float(sets.sum(axis=1).mean())
