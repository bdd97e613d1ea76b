"""Negative policies: what a binary submodel learns to say no to, and how much each picture counts."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from cascade.errors import CanonistiaError
from trainers.recipe import POLICIES

SIBLINGS = 5  # how many of the most confused classes ``siblings`` keeps
HARD_WEIGHT = 4.0  # how much more than the easiest negative the hardest class counts under ``weighted``
_FOLDS = 5


def confusion_shares(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return how the main model spreads its probability over the classes, (K, K), true classes in rows.

    A linear head on the main model's features (N, D) is refitted in five folds, and every picture is scored by a
    head that has not seen it, so a class counts as hard only by mistakes on unseen pictures.
    """
    smallest = int(np.bincount(targets).min())
    if smallest < 2:
        raise CanonistiaError("a class has one training picture; submodels need at least two of every class")
    folds = min(_FOLDS, smallest)
    head = LogisticRegression(C=0.1, max_iter=300, tol=1e-3)
    probabilities = cross_val_predict(head, features, targets, cv=folds, method="predict_proba")  # (N, K)
    return np.stack([probabilities[targets == label].mean(axis=0) for label in np.unique(targets)])


def example_weights(policy: str, targets: np.ndarray, positive: int, confusion: np.ndarray) -> np.ndarray:
    """Return the weight of every training picture for one submodel, (N,): zero leaves a picture out.

    Parameters
    ----------
    policy
        ``all``: every other picture counts the same; ``siblings``: only the classes most confused with this one;
        ``weighted``: all, the most confused classes counting up to five times as much.
    confusion
        The shares of :func:`confusion_shares`, (K, K).

    Notes
    -----
    Positives and negatives have the same total weight, and the mean weight is 1, so that a rare class does not
    drown and the learning rate means the same for every policy.
    """
    # Confusion in both directions: pictures of the class taken for another, and another's taken for it.
    likeness = confusion[positive] + confusion[:, positive]  # (K,)
    likeness[positive] = 0
    if policy == "all":
        by_class = np.ones(len(likeness))
    elif policy == "siblings":
        by_class = (np.argsort(np.argsort(-likeness, kind="stable")) < SIBLINGS).astype(float)
    elif policy == "weighted":
        by_class = 1 + HARD_WEIGHT * likeness / max(likeness.max(), np.finfo(float).tiny)
    else:
        raise CanonistiaError(f"unknown negative policy '{policy}'; expected one of {', '.join(POLICIES)}")
    is_positive = targets == positive  # (N,)
    negatives = np.where(is_positive, 0.0, by_class[targets])
    half = len(targets) / 2
    return np.where(is_positive, half / is_positive.sum(), negatives * half / negatives.sum())
