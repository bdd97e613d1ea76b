"""Progress of long work that no terminal watches: a line per minute on standard error, for a log."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from threading import Thread
from typing import TypeVar

import click

T = TypeVar("T")
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
