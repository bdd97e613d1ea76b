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
from webapp.serving.statistics import Statistics

# On a CPU larger batches are slower per picture, because their activations no longer fit into the cache, and the
# runtime keeps the memory of the largest one.
BATCH_SIZE = 2


@dataclass(frozen=True)
class Outcome:
    """The result of the cascade for one picture; K classes, in the order of the bundle's."""

    prediction: Prediction
    scores: np.ndarray  # (K,) final probabilities
    main: np.ndarray  # (K,) calibrated probabilities of the main model
    submodels: np.ndarray  # (K,) calibrated probabilities of the submodels, NaN where a submodel was not run
    doubt: float  # above 1: unsure
    maps: np.ndarray | None  # (2, h, w) activation maps of label_1 and label_2; None if not requested or not available


@dataclass(frozen=True)
class Job:
    """A picture that waits for its answer; cancelling the answer takes the picture out of the queue."""

    view: View
    maps: bool
    answer: "Future[Outcome]" = field(default_factory=Future)
    queued_at: float = field(default_factory=time.monotonic)


@dataclass
class Reservation:
    """A picture that will be submitted to a batcher soon."""

    batcher: "Batcher"
    submitted: bool = False

    def submit(self, view: View, maps: bool = False, inline: bool = False) -> "Future[Outcome]":
        """Return the future answer for the picture.

        With ``inline``, a picture that is alone in the batcher runs in the caller's thread: on return the answer is
        complete, or the error is raised. This saves two switches between threads.
        """
        job = Job(view, maps)
        self.submitted = True
        self.batcher.add(job, inline)
        return job.answer


class Batcher:
    """Runs pictures in the order of their arrival, up to ``concurrent_batches`` batches at the same time.

    It never waits for more pictures: those that arrive while all batches are busy go together, up to ``BATCH_SIZE``.

    Parameters
    ----------
    latency_engine
        For a picture that comes alone: each inference uses all cores.
    throughput_engine
        For pictures that come together: each inference uses one thread, which costs less core time per picture than
        one batch on all cores.
    """

    def __init__(
        self, latency_engine: Engine, throughput_engine: Engine, concurrent_batches: int, metrics: Metrics
    ) -> None:
        self._latency_engine = latency_engine
        self._throughput_engine = throughput_engine
        self._concurrent_batches = concurrent_batches
        self._metrics = metrics
        self.statistics = Statistics()
        self._jobs: deque[Job] = deque()
        self._reserved = 0  # pictures
        self._running = 0  # batches
        self._closed = False
        self._changed = threading.Condition()
        self._models = ThreadPoolExecutor(concurrent_batches, "models")

    @contextmanager
    def reserve(self) -> Iterator[Reservation]:
        """Announce a picture that is being decoded; it is submitted through the reservation."""
        with self._changed:
            self._reserved += 1
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            if not reservation.submitted:
                with self._changed:
                    self._reserved -= 1

    def add(self, job: Job, inline: bool) -> None:
        """Queue a picture that was reserved; if it is alone and may run ``inline``, answer it before returning."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._reserved -= 1
            inline = inline and self._is_idle()
            if inline:
                self._running += 1
            else:
                self._jobs.append(job)
        if inline:
            job.answer.set_result(self._run(self._latency_engine, [job])[0])
        else:
            self._start_next()

    def close(self) -> None:
        """Answer the queued pictures, then stop."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not (self._jobs or self._running))
        self._models.shutdown()

    def _is_idle(self) -> bool:
        return not (self._jobs or self._reserved or self._running)

    def _start_next(self) -> None:
        """Start the next batch if there is one and fewer than ``concurrent_batches`` run."""
        with self._changed:
            batch: list[Job] = []
            while self._jobs and self._running < self._concurrent_batches and not batch:
                jobs = [self._jobs.popleft() for _ in range(min(BATCH_SIZE, len(self._jobs)))]
                # A client that left has cancelled its answer.
                batch = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            if not batch:
                self._changed.notify_all()  # the remaining jobs may all have been cancelled
                return
            engine = self._latency_engine if len(batch) == 1 and self._is_idle() else self._throughput_engine
            self._running += 1
        run = self._models.submit(self._run, engine, batch)
        run.add_done_callback(partial(self._deliver, batch))

    @staticmethod
    def _deliver(batch: Sequence[Job], run: "Future[list[Outcome]]") -> None:
        error = run.exception()
        for job, outcome in zip(batch, run.result() if error is None else [None] * len(batch), strict=True):
            if outcome is None:
                job.answer.set_exception(error)
            else:
                job.answer.set_result(outcome)

    @contextmanager
    def _measured(self, batch: Sequence[Job]) -> Iterator[None]:
        """Measure a batch that is counted as running; afterwards start the next one."""
        started = time.monotonic()
        self._metrics.batch.observe(len(batch))
        waited = [started - job.queued_at for job in batch]
        for seconds in waited:
            self._metrics.queue.observe(seconds)
        try:
            yield
        finally:
            seconds = time.monotonic() - started
            self._metrics.inference.observe(seconds)
            self.statistics.add_batch(waited, seconds)
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
            self._start_next()

    def _run(self, engine: Engine, batch: Sequence[Job]) -> list[Outcome]:
        with self._measured(batch):
            output = engine.run([job.view for job in batch])
            predictions = engine.predictions(output)
            maps = self._maps(engine, batch, predictions)
        return [
            Outcome(
                prediction,
                output.probabilities[index],
                output.main[index],
                output.submodels[index],
                float(output.doubt[index]),
                maps.get(index),
            )
            for index, prediction in enumerate(predictions)
        ]

    @staticmethod
    def _maps(engine: Engine, batch: Sequence[Job], predictions: Sequence[Prediction]) -> dict[int, np.ndarray]:
        """Return the activation maps (2, h, w) of both predicted classes, by index in the batch, where requested."""
        indices = [index for index, job in enumerate(batch) if job.maps]
        if not indices or not engine.has_activation_maps:
            return {}
        all_maps = engine.main_outputs([batch[index].view for index in indices], "activation_maps")[0]  # (M, K, h, w)
        class_index = engine.classes.index
        return {
            index: maps[[class_index(predictions[index].label_1), class_index(predictions[index].label_2)]]
            for index, maps in zip(indices, all_maps, strict=True)
        }
