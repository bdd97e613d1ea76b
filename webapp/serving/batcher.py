"""The batcher: pictures of many requests, run through the cascade together."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from cascade.images.view import View
from cascade.inference.engine import Engine
from cascade.inference.prediction import Prediction
from webapp.serving.metrics import Metrics

# On a CPU larger batches are slower a picture, for what they hold leaves the cache, and the runtime keeps the memory of
# the largest one.
BATCH_SIZE = 2


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
class Job:
    """A picture that waits for its answer; cancelling that takes it out of the queue."""

    view: View
    maps: bool
    answer: "Future[Outcome]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


@dataclass
class Coming:
    """A picture on its way to a batcher."""

    batcher: "Batcher"
    submitted: bool = False

    def submit(self, view: View, maps: bool = False, here: bool = False) -> "Future[Outcome]":
        """Return the future answer about the picture.

        With ``here`` a picture that nothing runs beside is run in the caller's thread, and the answer is there on
        return, or the error is raised. That saves handing it from thread to thread and back.
        """
        job = Job(view, maps)
        self.submitted = True
        self.batcher.add(job, here)
        return job.answer


class Batcher:
    """Runs pictures in the order of their arrival, ``lanes`` batches side by side.

    It never waits for a picture: what has come while every lane was busy goes together, up to ``BATCH_SIZE``.

    Parameters
    ----------
    engine
        For a picture that comes alone: each of its inferences may use every core.
    crowd
        For many: its inferences have one thread each, which costs less core time a picture than one batch on all
        cores.
    """

    def __init__(self, engine: Engine, crowd: Engine, lanes: int, metrics: Metrics) -> None:
        self._engine = engine
        self._crowd = crowd
        self._lanes = lanes
        self._metrics = metrics
        self._jobs: deque[Job] = deque()
        self._coming = 0
        self._running = 0  # batches
        self._closed = False
        self._changed = threading.Condition()
        self._models = ThreadPoolExecutor(lanes, "models")

    @contextmanager
    def coming(self) -> Iterator["Coming"]:
        """Say that a picture is on its way: being decoded, about to be submitted through what this gives."""
        with self._changed:
            self._coming += 1
        coming = Coming(self)
        try:
            yield coming
        finally:
            if not coming.submitted:
                with self._changed:
                    self._coming -= 1

    def add(self, job: Job, here: bool) -> None:
        """Queue a picture that was on its way; where it is alone and may run ``here``, answer it before returning."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._coming -= 1
            here = here and self._nothing_else()
            if here:
                self._running += 1
            else:
                self._jobs.append(job)
        if here:
            job.answer.set_result(self._run(self._engine, [job])[0])
        else:
            self._start()

    def close(self) -> None:
        """Answer what is queued, then stop."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not (self._jobs or self._running))
        self._models.shutdown()

    def _nothing_else(self) -> bool:
        return not (self._jobs or self._coming or self._running)

    def _start(self) -> None:
        """Give the next batch to a lane, if there is one of each."""
        with self._changed:
            batch: list[Job] = []
            while self._jobs and self._running < self._lanes and not batch:
                jobs = [self._jobs.popleft() for _ in range(min(BATCH_SIZE, len(self._jobs)))]
                # A client that left has cancelled its answer.
                batch = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            if not batch:
                self._changed.notify_all()  # all that was left may have been cancelled
                return
            engine = self._engine if len(batch) == 1 and self._nothing_else() else self._crowd
            self._running += 1
        run = self._models.submit(self._run, engine, batch)
        run.add_done_callback(partial(self._hand_out, batch))

    @staticmethod
    def _hand_out(batch: Sequence[Job], run: "Future[list[Outcome]]") -> None:
        error = run.exception()
        for job, outcome in zip(batch, run.result() if error is None else [None] * len(batch), strict=True):
            if outcome is None:
                job.answer.set_exception(error)
            else:
                job.answer.set_result(outcome)

    @contextmanager
    def _lane(self, batch: Sequence[Job]) -> Iterator[None]:
        """Measure a batch that is counted as running; afterwards the next one has its lane."""
        started = time.monotonic()
        self._metrics.batch.observe(len(batch))
        for job in batch:
            self._metrics.queue.observe(started - job.since)
        try:
            yield
        finally:
            self._metrics.inference.observe(time.monotonic() - started)
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
            self._start()

    def _run(self, engine: Engine, batch: Sequence[Job]) -> list[Outcome]:
        with self._lane(batch):
            output = engine.run([job.view for job in batch])
            predictions = engine.predictions(output)
            maps = self._maps(engine, batch, predictions)
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

    def _maps(self, engine: Engine, batch: Sequence[Job], predictions: Sequence[Prediction]) -> dict[int, np.ndarray]:
        rows = [row for row, job in enumerate(batch) if job.maps]
        if not rows or not engine.has_activation_maps:
            return {}
        every = engine.main_outputs([batch[row].view for row in rows], "activation_maps")[0]  # (M, K, h, w)
        index = engine.classes.index
        return {
            row: of_classes[[index(predictions[row].label_1), index(predictions[row].label_2)]]
            for row, of_classes in zip(rows, every, strict=True)
        }
