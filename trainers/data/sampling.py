"""Sampling: which pictures make the batches of an epoch, the same for every number of processes."""

import math
from dataclasses import dataclass

import numpy as np

from cascade.errors import CanonistiaError


@dataclass(frozen=True)
class Share:
    """The indices of one batch that one process takes, and the factor on the weight of each.

    With it the mean over the processes of their means is the mean over the batch.
    """

    indices: np.ndarray
    factor: float


def shuffled(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the indices of each batch of an epoch: every index once, in an order set by seed and epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def in_order(count: int, batch_size: int) -> list[np.ndarray]:
    """Return the indices of each batch, in order."""
    return [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


def balanced(targets: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return as many batches as :func:`shuffled`, each with every class equally often and no picture twice.

    Raises
    ------
    CanonistiaError
        The smallest class has fewer pictures than a batch takes of each class.
    """
    classes, counts = np.unique(targets, return_counts=True)
    each = math.ceil(batch_size / len(classes))
    if counts.min() < each:
        raise CanonistiaError(
            f"the smallest class has {counts.min()} pictures, expected {each} for a balanced batch of {batch_size} of "
            f"{len(classes)} classes; lower --batch-size to {counts.min() * len(classes)}, or take "
            "--sampler shuffled"
        )
    random = np.random.default_rng([seed, epoch])
    drawn: dict[int, np.ndarray] = {int(label): np.empty(0, dtype=np.int64) for label in classes}
    batches = []
    for _ in range(math.ceil(len(targets) / batch_size)):
        indices = []
        for label in random.permutation(classes):
            if len(drawn[label]) < each:  # the class starts over; its remaining pictures come first
                left = drawn[label]
                again = random.permutation(np.setdiff1d(np.flatnonzero(targets == label), left))
                drawn[label] = np.concatenate([left, again])
            indices.append(drawn[label][:each])
            drawn[label] = drawn[label][each:]
        batches.append(random.permutation(np.concatenate(indices))[:batch_size])
    return batches


def by_source(targets: np.ndarray, sources: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return as many batches as :func:`shuffled`, drawn with replacement: every class is as likely as any other.

    Within a class a source's share is that of the square root of its pictures: one of 3,000 does not drown one of 100,
    and none of 3 is seen a hundred times in an epoch. ``targets`` and ``sources`` are (N,).
    """
    _, groups, counts = np.unique(
        np.stack([targets, np.unique(sources, return_inverse=True)[1]]), axis=1, return_inverse=True, return_counts=True
    )
    chances = 1 / np.sqrt(counts[groups])  # (N,): a group's chances sum up to the root of its count
    chances /= np.bincount(targets, weights=chances)[targets]
    random = np.random.default_rng([seed, epoch])
    drawn = random.choice(len(targets), size=len(targets), p=chances / chances.sum())
    return [drawn[start : start + batch_size] for start in range(0, len(drawn), batch_size)]


def share_of(indices: np.ndarray, process: int, processes: int) -> Share:
    """Return one process's share of a batch; where none is left for it, one index with factor 0."""
    mine = indices[process::processes]
    return Share(mine, len(mine) * processes / len(indices)) if len(mine) else Share(indices[:1], 0.0)


def slice_of(count: int, process: int, processes: int) -> slice:
    """Return one process's part of ``count`` indices in order; together the parts are all of them."""
    return slice(count * process // processes, count * (process + 1) // processes)
