"""Threads: how many cores this process may use, and how batch work is divided among them."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from cascade.cgroups import group_limits

# Pictures that one thread infers at once. On a CPU more are slower: their data no longer fits the cache.
BATCH_SIZE = 4

T = TypeVar("T")
R = TypeVar("R")


def processors(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: its affinity, or less if a cgroup sets a quota.

    A container with a quota of 1.5 cores may run two threads. ``root`` is the folder of ``proc`` and ``sys``.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(root))))


def keep_blas_single() -> None:
    """Keep numpy's linear algebra in the thread that calls it; this has an effect only before numpy is imported.

    OpenBLAS would start one thread per further core, and each would first spin while the bundle is hashed and the
    runtime starts on the same cores. A value set by the user is kept.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@dataclass(frozen=True)
class Plan:
    """How batch work is divided among the cores: ``workers`` batches in parallel, ``inference`` threads per batch.

    With 0 workers the batches are processed one after another, in the caller's thread.
    """

    workers: int
    inference: int


def plan(things: Iterable[T], threads: int | None = None) -> tuple[Plan, Iterator[T]]:
    """Return how to use ``threads`` (by default all processors), and an iterator over all the things.

    With many things each thread processes its own batch: an inference by one thread costs less core time than one by
    several, and no thread waits. With fewer things than threads, all threads work on each inference.
    """
    total = threads or processors()
    things = iter(things)
    first = list(islice(things, total))
    few = len(first) < total or total == 1
    return Plan(0, total) if few else Plan(total, 1), chain(first, things)


def batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the things in order, in lists of ``size``; the last one may be shorter."""
    things = iter(things)
    while batch := list(islice(things, size)):
        yield batch


def in_order(
    work: Callable[[T], R],
    things: Iterable[T],
    threads: int,
    ahead: int = 2,
    weight: Callable[[T], int] = lambda thing: 0,
    most: int = 0,
) -> Iterator[R]:
    """Yield the result of ``work`` for each thing, in order, computed by several threads, or with 0 by the caller's.

    At most ``ahead`` finished or waiting results per thread are in memory, and no more of them than have the weight
    ``most`` together: a slow reader of the results slows down the work, and the things may be endless. An exception of
    ``work`` is raised in place of its result. If the caller stops early, work that has not started is dropped, and
    running work is waited for.
    """
    if not threads:
        yield from map(work, things)
        return
    pool = ThreadPoolExecutor(threads)
    pending: deque[tuple[Future[R], int]] = deque()
    held = 0
    try:
        for thing in things:
            pending.append((pool.submit(work, thing), weight(thing)))
            held += pending[-1][1]
            while pending and (len(pending) > ahead * threads or held > most > 0):
                future, freed = pending.popleft()
                held -= freed
                yield future.result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _quota(root: Path) -> float:
    """Return the lowest quota of the process's cgroups, in cores; infinite if none is set."""
    quotas = group_limits("cpu", "cpu.max", ("cpu.cfs_quota_us", "cpu.cfs_period_us"), root)
    return min(map(_share, quotas), default=math.inf)


def _share(quota_and_period: list[str]) -> float:
    match quota_and_period:
        case [quota, period] if quota.isdigit() and int(period) > 0:
            return max(int(quota), 1) / int(period)
    return math.inf
