"""Threads: how many cores this process may use, and how batch work is shared out among them."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

# Pictures that one thread takes through the models at once. On a CPU more are slower: what they hold leaves the cache.
BATCH_SIZE = 4

T = TypeVar("T")
R = TypeVar("R")


def processors(root: Path = Path("/")) -> int:
    """Return how many cores this process may keep busy: its affinity, or less where a cgroup sets a quota.

    A container that is given one and a half cores may run two threads. ``root`` is where ``proc`` and ``sys`` lie.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(root))))


def keep_blas_single() -> None:
    """Keep numpy's linear algebra in the thread that calls it; only of use before numpy is imported.

    OpenBLAS would start a thread for each further core, and each would begin by waiting busily for work, while the
    bundle is hashed and the runtime starts on the same cores. A setting of the user's own is left alone.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@dataclass(frozen=True)
class Plan:
    """How batch work shares out the cores: ``workers`` batches at once, ``inference`` threads for each.

    No worker: the work is done one batch after another, in the thread that wants it.
    """

    workers: int
    inference: int


def plan(things: Iterable[T], threads: int | None = None) -> tuple[Plan, Iterator[T]]:
    """Return how to share out ``threads`` (by default all processors), and the things, of which a few were looked at.

    Many pictures have one thread each from their bytes to their rows: an inference by one thread costs less core
    time than one by several, and nothing waits for anything. Fewer pictures than threads have all for each inference.
    """
    total = threads or processors()
    things = iter(things)
    first = list(islice(things, total))
    few = len(first) < total or total == 1
    return Plan(0, total) if few else Plan(total, 1), chain(first, things)


def in_order(work: Callable[[T], R], things: Iterable[T], threads: int, ahead: int = 2) -> Iterator[R]:
    """Yield what ``work`` makes of each thing, in order, made by several threads, or by the caller's where there are 0.

    No more than ``ahead`` finished or waiting results a thread are held: a slow reader of the results slows the work,
    and the things may be endless. What ``work`` raises is raised here in its turn. When the caller leaves early, work
    that has not begun is dropped and work that has is waited for.
    """
    if not threads:
        yield from map(work, things)
        return
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[R]] = deque()
    try:
        for thing in things:
            pending.append(pool.submit(work, thing))
            if len(pending) > ahead * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _quota(root: Path) -> float:
    """Return the least quota of the process's cgroups, in cores; infinite where none is set."""
    quotas = [math.inf]
    for line in _words(root / "proc/self/cgroup", "\n"):
        _, controllers, inside = line.split(":", 2)
        if not controllers:
            quotas += [_share(_words(group / "cpu.max")) for group in _groups(root / "sys/fs/cgroup", inside)]
        elif "cpu" in controllers.split(","):
            for group in _groups(root / "sys/fs/cgroup/cpu", inside):
                quotas.append(_share(_words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")))
    return min(quotas)


def _groups(mount: Path, inside: str) -> list[Path]:
    # A limit of any group above holds, too. Inside a container the mount may be the process's own group.
    own = mount / inside.lstrip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(mount))]


def _share(quota_and_period: list[str]) -> float:
    match quota_and_period:
        case [quota, period] if quota.isdigit() and int(period) > 0:
            return max(int(quota), 1) / int(period)
    return math.inf


def _words(path: Path, separator: str | None = None) -> list[str]:
    try:
        return path.read_text(encoding="ascii").strip().split(separator)
    except OSError:
        return []
