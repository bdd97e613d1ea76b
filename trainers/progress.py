"""Progress of long work: bars on a terminal, else a line per minute."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cascade.progress import line_per_minute

T = TypeVar("T")
Parts = TypeVar("Parts", bound=tuple[Sized, ...])


class _Rate(ProgressColumn):
    """Pictures per second, over the last steps."""

    def render(self, task: Task) -> Text:
        """Return the cell; empty before the first step is over."""
        each = task.fields.get("each", 0)
        return Text(f"{task.speed * each:.0f} pictures/s" if task.speed and each else "")


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, with a progress bar on standard error when that is a terminal, else with a line per minute."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    if not sys.stderr.isatty():
        yield from line_per_minute(items, what, total, unit="steps")
        return
    with _bar(TimeRemainingColumn()) as progress:
        yield from progress.track(items, total=total, description=what)


def steps_shown(batches: Iterable[Parts], what: str, done: int, total: int) -> Iterator[Parts]:
    """Yield the batches of an epoch from batch ``done`` on, and show throughput and time left."""
    if not sys.stderr.isatty():
        yield from line_per_minute(batches, what, total, done, "batches")
        return
    with _bar(_Rate(), TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task(what, total=total, completed=done)
        for batch in batches:
            yield batch
            progress.update(task, advance=1, each=len(batch[0]))


def _bar(*columns: ProgressColumn) -> Progress:
    first = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*first, *columns, console=Console(stderr=True), transient=True)
