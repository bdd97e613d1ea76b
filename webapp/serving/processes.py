"""Processes: what the master and the workers of one service show together in their metrics."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import TYPE_CHECKING

from webapp.serving.limits import heartbeat_folder

if TYPE_CHECKING:
    from prometheus_client import Metric

# By this variable prometheus-client learns, when it is imported, that several processes count together.
_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_OLDEST = "process_start_time_seconds"
_USED = "process_cpu_seconds"


class Crew:
    """The processes of a service, asked in its master."""

    def __init__(self) -> None:
        self.workers: dict[int, object] = {}  # by process id

    def pids(self) -> list[int]:
        """Return the ids of the master and of the workers that live."""
        return [os.getpid(), *list(self.workers)]

    def ended_seconds(self) -> float:
        """Return the processor time of the workers that have ended."""
        used = getrusage(RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Processes:
    """The folder in which the processes of a service count together, and the processes."""

    folder: Path
    crew: Crew

    def collect(self) -> "Iterable[Metric]":
        """Yield the metrics of all processes as those of one: sums, and the time of the oldest start."""
        from prometheus_client import ProcessCollector

        found: dict[str, list[Metric]] = {}
        for pid in self.crew.pids():
            for metric in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                found.setdefault(metric.name, []).append(metric)
        for name, metrics in found.items():
            values = [sample.value for metric in metrics for sample in metric.samples]
            value = min(values) if name == _OLDEST else sum(values)
            first = metrics[0]
            first.samples = [
                sample._replace(value=value + (self.crew.ended_seconds() if name == _USED else 0))
                for sample in first.samples
            ]
            yield first


@contextmanager
def counting_folder() -> Iterator[Path]:
    """Yield a folder in which processes that are forked from this one count together; it is removed at the end.

    It holds counters and the names of models, and is in memory where the system has such a folder.
    """
    maker = os.getpid()
    folder = Path(tempfile.mkdtemp(prefix="canonistia-metrics-", dir=heartbeat_folder()))
    os.environ[_VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        if os.getpid() == maker:  # workers come by here, too, when they end
            shutil.rmtree(folder, ignore_errors=True)


def forget(pid: int) -> None:
    """Take out of the counts what a process that has died was doing; what it did stays."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)
