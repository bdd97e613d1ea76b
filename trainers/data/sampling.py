"""Sampling: which pictures make the batches of an epoch, the same for every number of processes."""

import math
from dataclasses import dataclass

import numpy as np

from cascade.errors import CanonistiaError


@dataclass(frozen=True)
class Share:
    """The rows of one batch that one process takes, and the factor on the weight of each.

    The mean over the processes of each one's mean is then the mean over the batch.
    """

    rows: np.ndarray
    factor: float


def shuffled(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the rows of each batch of an epoch: every row once, in an order that follows from seed and epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def in_order(count: int, batch_size: int) -> list[np.ndarray]:
    """Return the rows of each batch, in order."""
    return [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


def balanced(targets: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return batches that hold every class equally often, none of them a picture twice; as many as without balance.

    Raises
    ------
    CanonistiaError
        The smallest class has fewer pictures than a batch needs of it.
    """
    classes, counts = np.unique(targets, return_counts=True)
    each = math.ceil(batch_size / len(classes))
    if counts.min() < each:
        raise CanonistiaError(
            f"a balanced batch of {batch_size} holds {each} pictures of each of the {len(classes)} classes, and the "
            f"smallest has {counts.min()}; lower --batch-size to {counts.min() * len(classes)}, or take "
            "--sampler shuffled"
        )
    random = np.random.default_rng([seed, epoch])
    drawn: dict[int, np.ndarray] = {int(label): np.empty(0, dtype=np.int64) for label in classes}
    batches = []
    for _ in range(math.ceil(len(targets) / batch_size)):
        rows = []
        for label in random.permutation(classes):
            if len(drawn[label]) < each:  # the class is gone through once more; what is left of it comes first
                left = drawn[label]
                again = random.permutation(np.setdiff1d(np.flatnonzero(targets == label), left))
                drawn[label] = np.concatenate([left, again])
            rows.append(drawn[label][:each])
            drawn[label] = drawn[label][each:]
        batches.append(random.permutation(np.concatenate(rows))[:batch_size])
    return batches


def share_of(rows: np.ndarray, process: int, processes: int) -> Share:
    """Return one process's share of a batch; where there is no row for it, one that counts nothing."""
    mine = rows[process::processes]
    return Share(mine, len(mine) * processes / len(rows)) if len(mine) else Share(rows[:1], 0.0)


def slice_of(count: int, process: int, processes: int) -> slice:
    """Return one process's part of ``count`` rows in order; the parts join to all of them."""
    return slice(count * process // processes, count * (process + 1) // processes)
