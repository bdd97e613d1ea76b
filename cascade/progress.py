"""Progress of long work: a live display on a terminal, else a line per phase and per minute for a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Event, Thread
from typing import TextIO, TypeVar

import click

T = TypeVar("T")
Parts = TypeVar("Parts", bound=tuple[Sized, ...])
Total = int | None | Callable[[], int | None]

EVERY = 60.0  # seconds


def line_per_minute(
    items: Iterable[T], what: str, total: Total = None, done: int = 0, unit: str = "pictures"
) -> Iterator[T]:
    """Yield the items, and say every minute how many are done, at which rate, and when the rest will be.

    ``total`` is their number, or what is asked for it once a minute has passed; None if it is not known. ``done`` were
    done before. The rate is that of the last minute: after a resumed start the known ones pass in no time.
    """
    shown, before = time.monotonic(), done
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - shown >= EVERY:
            known = total() if callable(total) else total
            click.echo(progress_line(what, unit, done, known, (done - before) / (now - shown)), err=True)
            shown, before = now, done


def progress_line(what: str, unit: str, done: int, total: int | None, rate: float) -> str:
    """Return a line such as ``classify: 1,200 of 5,000 pictures, 20.0 per second, 0:03:10 left``."""
    counted = f"{done:,} {unit}" if total is None else f"{done:,} of {total:,} {unit}"
    left = "" if total is None else f", {timedelta(seconds=round(max(0, total - done) / rate))} left"
    return f"{what}: {counted}, {rate:,.1f} per second{left}"


class CountedAside:
    """A number that takes long to count: a thread counts it from the first time it is asked for; None until then."""

    def __init__(self, count: Callable[[], int | None]) -> None:
        self._count = count
        self._number: int | None = None
        self._thread: Thread | None = None

    def __call__(self) -> int | None:
        """Return the number, if it is known by now."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="counting", daemon=True)
            self._thread.start()
        return self._number

    def _run(self) -> None:
        self._number = self._count()


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, with a progress bar on standard error when that is a terminal, else with a line per minute."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from _with_bar(items, what, total, 0, lambda item: 0)
    else:
        yield from line_per_minute(items, what, total, unit="steps")


def steps_shown(batches: Iterable[Parts], what: str, done: int, total: int) -> Iterator[Parts]:
    """Yield the batches of an epoch from batch ``done`` on, and show throughput and time left."""
    if sys.stderr.isatty():
        yield from _with_bar(batches, what, total, done, lambda batch: len(batch[0]))
    else:
        yield from line_per_minute(batches, what, total, done, "batches")


def _with_bar(items: Iterable[T], what: str, total: int | None, done: int, pictures: Callable[[T], int]) -> Iterator[T]:
    """Yield the items, with a bar; ``pictures`` returns how many an item holds, 0 where their rate is not shown."""
    # Not among the serving libraries: only training and what follows it show bars.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=done, rate="")
        for item in items:
            yield item
            speed, each = progress.tasks[0].speed, pictures(item)
            rate = f"{speed * each:.0f} pictures/s" if speed and each else ""
            progress.update(task, advance=1, rate=rate)


@dataclass(frozen=True)
class Phase:
    """A part of long work, and the seconds that it is expected to take."""

    name: str
    seconds: float


class PhaseDisplay:
    """The one display of work in phases: which one is running, since when, and how long all of them will still take.

    A terminal sees it live, and keeps a line per finished phase. Anything else gets a line when a phase begins and one
    per minute. The stream is that of standard error when the display is made, so what a phase itself says may be
    redirected.
    """

    def __init__(self, what: str, phases: Sequence[Phase], stream: TextIO | None = None) -> None:
        self.what = what
        self.phases = phases
        self.stream = stream or sys.stderr

    @contextmanager
    def during(self, number: int) -> Iterator[None]:
        """Show the phase of this number, from 0 on, while the block runs."""
        began = time.monotonic()
        if self.stream.isatty():
            with self._live(number, began):
                yield
            took = timedelta(seconds=round(time.monotonic() - began))
            click.echo(f"{self._place(number)}: done in {took}", file=self.stream)
            return
        self._say(number, began)
        ended = Event()

        def repeat() -> None:
            while not ended.wait(EVERY):
                self._say(number, began)

        thread = Thread(target=repeat, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def line(self, number: int, elapsed: float) -> str:
        """Return a line such as ``fit: 2 of 5, submodels: 0:01:00 so far, about 0:07:30 left in all``."""
        planned = self.phases[number].seconds
        left = max(0.0, planned - elapsed) + sum(phase.seconds for phase in self.phases[number + 1 :])
        so_far = f"{timedelta(seconds=round(elapsed))} so far, " if elapsed >= 1 else ""
        return f"{self._place(number)}: {so_far}about {timedelta(seconds=round(left))} left in all"

    def _place(self, number: int) -> str:
        return f"{self.what}: {number + 1} of {len(self.phases)}, {self.phases[number].name}"

    def _say(self, number: int, began: float) -> None:
        click.echo(self.line(number, time.monotonic() - began), file=self.stream)

    @contextmanager
    def _live(self, number: int, began: float) -> Iterator[None]:
        # Not among the serving libraries: only work that trains has phases.
        from rich.console import Console
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        def shown() -> Table:
            elapsed = time.monotonic() - began
            row = Table.grid(padding=(0, 1))
            planned = max(1.0, self.phases[number].seconds)
            row.add_row(self.line(number, elapsed), ProgressBar(planned, min(elapsed, planned), width=20))
            return row

        console = Console(file=self.stream)
        with Live(
            console=console,
            get_renderable=shown,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield
