"""Negative policies: which pictures of other classes a binary submodel learns from, and each picture's weight."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from cascade.errors import CanonistiaError
from trainers.recipe import POLICIES

SIBLINGS = 5  # the number of classes that ``siblings`` keeps
HARD_WEIGHT = 4.0  # how much more than the easiest the hardest counts under ``weighted`` and ``hard``
_FOLDS = 5


def cross_fitted(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return out-of-fold probabilities (N, K): of each picture, by a linear head that was not fitted on it.

    The head is refitted in five folds on features (N, D), which must come from a backbone that was not trained on
    these pictures either. A picture or a class is then hard only by mistakes on pictures that were not trained on.

    Raises
    ------
    CanonistiaError
        A class has only one picture.
    """
    smallest = int(np.bincount(targets).min())
    if smallest < 2:
        raise CanonistiaError(
            "a class has one training picture, expected at least two for submodels; add pictures of it"
        )
    folds = min(_FOLDS, smallest)
    head = LogisticRegression(C=0.1, max_iter=300, tol=1e-3)
    return cross_val_predict(head, features, targets, cv=folds, method="predict_proba")


def example_weights(
    policy: str, targets: np.ndarray, positive: int, out_of_fold: np.ndarray, given: np.ndarray | None = None
) -> np.ndarray:
    """Return the weight of every training picture for one submodel, (N,): zero leaves a picture out.

    Parameters
    ----------
    policy
        ``all``: every picture has the same weight; ``siblings``: of the negatives, only the classes most confused with
        this one; ``weighted``: all, with up to five times the weight for the most confused classes; ``hard``: up to
        five times the weight for pictures that are misclassified as this class, or are of it and misclassified.
    out_of_fold
        The probabilities that :func:`cross_fitted` returns, (N, K).
    given
        The weights that the pictures have before, (N,); by default all alike.

    Notes
    -----
    Positives and negatives have the same total weight, so that a rare class counts as much as all others; the mean
    weight is 1, so that a learning rate suits every policy.
    """
    is_positive = targets == positive  # (N,)
    weights = np.ones(len(targets))
    if policy == "hard":
        weights += HARD_WEIGHT * np.where(is_positive, 1 - out_of_fold[:, positive], out_of_fold[:, positive])
    elif policy in ("siblings", "weighted"):
        likeness = _likeness(targets, positive, out_of_fold)  # (K,)
        if policy == "siblings":
            by_class = (np.argsort(np.argsort(-likeness, kind="stable")) < SIBLINGS).astype(float)
        else:
            by_class = 1 + HARD_WEIGHT * likeness / max(likeness.max(), np.finfo(float).tiny)
        weights = np.where(is_positive, 1, by_class[targets])
    elif policy != "all":
        raise CanonistiaError(f"unknown negative policy '{policy}'; expected one of {', '.join(POLICIES)}")
    if given is not None:
        weights = weights * given
    half = len(targets) / 2
    return weights * np.where(is_positive, half / weights[is_positive].sum(), half / weights[~is_positive].sum())


def _likeness(targets: np.ndarray, positive: int, out_of_fold: np.ndarray) -> np.ndarray:
    """Return how much each class is confused with one, in both directions, (K,), zero for itself."""
    confusion = np.stack(
        [out_of_fold[targets == label].mean(axis=0) for label in range(out_of_fold.shape[1])]
    )  # (K, K)
    likeness = confusion[positive] + confusion[:, positive]
    likeness[positive] = 0
    return likeness
