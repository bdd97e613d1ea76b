"""Scores of an epoch: from logits and targets to named numbers."""

import numpy as np
from scipy.special import log_expit, softmax
from sklearn.metrics import average_precision_score, log_loss

from cascade.evaluation.metrics import seed_score
from cascade.rules.probabilities import top_two


def multiclass_scores(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return loss (cross-entropy), top 1, top 2 and seed score of logits (N, K) and class indices (N,)."""
    probabilities = softmax(logits.astype(np.float64), axis=1)
    order = top_two(probabilities)  # (N, 2)
    return {
        "loss": float(log_loss(targets, probabilities, labels=np.arange(logits.shape[1]))),
        "top1": float((order[:, 0] == targets).mean()),
        "top2": float((order == targets[:, None]).any(axis=1).mean()),
        "seed_score": seed_score(probabilities, targets),
    }


def binary_scores(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return loss, average precision, and precision and recall at one half, of logits (N, 1) and targets 0/1 (N,)."""
    values = logits[:, 0].astype(np.float64)
    yes, true = values >= 0, targets == 1
    right = float((yes & true).sum())
    return {
        "loss": float(-np.where(true, log_expit(values), log_expit(-values)).mean()),
        "average_precision": float(average_precision_score(targets, values)),
        "precision": right / max(1, int(yes.sum())),
        "recall": right / max(1, int(true.sum())),
    }
