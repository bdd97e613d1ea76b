"""The batcher: pictures of many requests, run through the cascade together."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from cascade.engine import Engine
from cascade.prediction import Prediction
from cascade.view import View
from webapp.metrics import Metrics

# On a CPU larger batches are no faster a picture, and the runtime keeps the memory of the largest one.
BATCH_SIZE = 8


@dataclass(frozen=True)
class Outcome:
    """What the cascade says of one picture; K classes."""

    prediction: Prediction
    scores: np.ndarray  # (K,) final probabilities
    main: np.ndarray  # (K,) calibrated probabilities of the main model
    submodels: np.ndarray  # (K,) calibrated answers, NaN where not asked
    doubt: float  # above 1: unsure
    maps: np.ndarray | None  # (2, h, w) activation maps of both named classes, where asked for


@dataclass(frozen=True)
class _Job:
    view: View
    maps: bool
    answer: "Future[Outcome]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Runs pictures in the order of their arrival, as many at once as are waiting, up to ``BATCH_SIZE``.

    It never waits for a picture that nobody has sent: only while others are being decoded does a batch stay open,
    and then for ``linger`` seconds at most.
    """

    def __init__(self, engine: Engine, metrics: Metrics, linger: float) -> None:
        self._engine = engine
        self._metrics = metrics
        self._linger = linger
        self._jobs: deque[_Job] = deque()
        self._coming = 0
        self._closed = False
        self._changed = threading.Condition()
        self._models = ThreadPoolExecutor(1, "models")
        self._collector = threading.Thread(target=self._collect, name="batcher", daemon=True)
        self._collector.start()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Say that a picture is on its way: being decoded, about to be submitted."""
        with self._changed:
            self._coming += 1
        try:
            yield
        finally:
            with self._changed:
                self._coming -= 1
                self._changed.notify()

    def submit(self, view: View, maps: bool = False) -> "Future[Outcome]":
        """Return the future answer about a picture; cancelling it takes the picture out of the queue."""
        job = _Job(view, maps)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._jobs.append(job)
            self._changed.notify()
        return job.answer

    def close(self) -> None:
        """Answer what is queued, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._collector.join()
        self._models.shutdown()

    def _collect(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            self._metrics.batch.observe(len(batch))
            for job in batch:
                self._metrics.queue.observe(started - job.since)
            run = self._models.submit(self._run, batch)
            error = run.exception()  # waits for the models; meanwhile the next batch gathers
            self._metrics.inference.observe(time.monotonic() - started)
            for job, outcome in zip(batch, run.result() if error is None else [None] * len(batch), strict=True):
                if outcome is None:
                    job.answer.set_exception(error)
                else:
                    job.answer.set_result(outcome)

    def _next_batch(self) -> list[_Job]:
        """Wait for pictures; an empty batch means that the batcher was closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                self._changed.wait_for(lambda: len(self._jobs) >= BATCH_SIZE or not self._coming, self._linger)
                jobs = [self._jobs.popleft() for _ in range(min(BATCH_SIZE, len(self._jobs)))]
            # A client that left has cancelled its answer.
            batch = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            if batch or not jobs:
                return batch

    def _run(self, batch: Sequence[_Job]) -> list[Outcome]:
        output = self._engine.run([job.view for job in batch])
        predictions = self._engine.predictions(output)
        maps = self._maps(batch, predictions)
        return [
            Outcome(
                prediction,
                output.probabilities[row],
                output.main[row],
                output.submodels[row],
                float(output.doubt[row]),
                maps.get(row),
            )
            for row, prediction in enumerate(predictions)
        ]

    def _maps(self, batch: Sequence[_Job], predictions: Sequence[Prediction]) -> dict[int, np.ndarray]:
        rows = [row for row, job in enumerate(batch) if job.maps]
        if not rows or not self._engine.has_activation_maps:
            return {}
        every = self._engine.main_outputs([batch[row].view for row in rows], "activation_maps")[0]  # (M, K, h, w)
        index = self._engine.classes.index
        return {
            row: of_classes[[index(predictions[row].label_1), index(predictions[row].label_2)]]
            for row, of_classes in zip(rows, every, strict=True)
        }
