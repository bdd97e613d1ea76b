"""Losses by name: from logits and targets to one number per picture."""

from collections.abc import Callable

import torch
from torch.nn import functional

from cascade.errors import CanonistiaError
from trainers.recipe import LOSSES

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def multiclass_loss(name: str, label_smoothing: float, classes: int) -> Loss:
    """Return a loss of logits (N, K) and class indices (N,), giving (N,).

    Raises
    ------
    CanonistiaError
        The name is unknown, or it is top2 with two classes or with label smoothing.
    """
    if name == "cross_entropy":
        return lambda logits, targets: functional.cross_entropy(
            logits, targets, reduction="none", label_smoothing=label_smoothing
        )
    if name == "top2" and label_smoothing:
        raise CanonistiaError("the loss top2 takes no label smoothing; leave --label-smoothing at 0")
    if name == "top2" and classes < 3:
        raise CanonistiaError(
            f"the loss top2 has nothing to learn from {classes} classes, expected 3 or more; take --loss cross_entropy"
        )
    if name == "top2":
        return smooth_top2
    raise CanonistiaError(f"unknown loss '{name}'; expected one of {', '.join(LOSSES)}")


def smooth_top2(logits: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return the smooth top-2 loss, which is low when the true class is among the two likeliest, (N,).

    It is the smooth top-k SVM of Berrada, Zisserman and Kumar (arXiv 1802.07595, equation 8) with k = 2 and a
    margin of 1: a soft maximum over all pairs of classes, with the margin on pairs without the true class, minus the
    soft maximum over the pairs with it. Sums over pairs are taken in log space, in O(K).

    Parameters
    ----------
    logits
        (N, K), K at least 2.
    targets
        Class indices, (N,).
    """
    halves = logits / (2 * temperature)  # (N, K)
    true = halves.gather(1, targets[:, None])  # (N, 1)
    others = halves.masked_fill(functional.one_hot(targets, logits.shape[1]).bool(), -torch.inf)  # (N, K)
    with_true = true.squeeze(1) + others.logsumexp(dim=1)  # (N,)
    without_true = _log_sum_of_pairs(others) + 1 / temperature  # (N,)
    return temperature * (torch.logaddexp(with_true, without_true) - with_true)


def _log_sum_of_pairs(logs: torch.Tensor) -> torch.Tensor:
    """Return log of the sum over pairs i < j of exp(logs_i + logs_j), (N,); needs two finite entries per row."""
    ordered = logs.sort(dim=1, descending=True).values  # finite entries first: no -inf minus -inf in the gradient
    before = ordered.logcumsumexp(dim=1)[:, :-1]
    return (ordered[:, 1:] + before).logsumexp(dim=1)
