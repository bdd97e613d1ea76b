"""Statistics: what a loaded bundle answered, and how long each step took, as Triton counts it."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field


@dataclass
class Total:
    """How often something happened, and the nanoseconds that it took altogether."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        """Add what took some seconds."""
        self.count += count
        self.ns += round(seconds * 1e9)


@dataclass
class Totals:
    """The totals of one bundle since it was loaded."""

    last_answer: int = 0  # milliseconds since 1970; 0: none yet
    pictures: int = 0  # run through the cascade
    answered: Total = field(default_factory=Total)  # requests
    failed: Total = field(default_factory=Total)  # requests
    decoding: Total = field(default_factory=Total)  # pictures: decoding and resizing
    waiting: Total = field(default_factory=Total)  # pictures: for the models
    inference: Total = field(default_factory=Total)  # pictures: a batch counts its time for each of its pictures
    batches: dict[int, Total] = field(default_factory=dict)  # by their number of pictures


class Statistics:
    """Collects the totals of one bundle, from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = Totals()

    def totals(self) -> Totals:
        """Return the totals so far."""
        with self._lock:
            return deepcopy(self._totals)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request, as failed where it raises an error."""
        started = time.monotonic()
        answered = False
        try:
            yield
            answered = True
        finally:
            with self._lock:
                total = self._totals.answered if answered else self._totals.failed
                total.add(time.monotonic() - started)

    def add_decoding(self, seconds: float) -> None:
        """Count a picture that was decoded and resized."""
        with self._lock:
            self._totals.decoding.add(seconds)

    def add_batch(self, waited: Sequence[float], seconds: float) -> None:
        """Count a batch that took some seconds, of pictures that waited before it."""
        with self._lock:
            totals, size = self._totals, len(waited)
            totals.last_answer = time.time_ns() // 1_000_000
            totals.pictures += size
            totals.waiting.add(sum(waited), size)
            totals.inference.add(seconds * size, size)
            totals.batches.setdefault(size, Total()).add(seconds)
