"""Metrics: counters and timers of the service, in the text format of Prometheus."""

import platform
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from webapp.serving.processes import Processes

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_REQUEST_SECONDS = (*_SECONDS, 30, 60)  # a request has a deadline, and its upload has a time limit, too


class Metrics:
    """The metrics of one application and of its process, in its own registry; or those of several processes as one.

    Parameters
    ----------
    processes
        Those that count together, this one among them. None: this process alone.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        disable_created_metrics()  # a second series for each, which no query here needs
        self.registry = registry = CollectorRegistry()
        self._shown = registry if processes is None else CollectorRegistry()
        if processes is None:
            ProcessCollector(registry=registry)
        else:
            self._shown.register(processes)
            MultiProcessCollector(self._shown, str(processes.folder))
        build = Info("canonistia_build", "The version that answers.", registry=self._shown)
        build.info({"version": version("canonistia"), "python": platform.python_version()})
        self.requests = Counter(
            "canonistia_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.duration = Histogram(
            "canonistia_request_seconds",
            "Time from the header of a request to its answer; no model: none was asked.",
            ["route", "model", "status"],
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self.errors = Counter("canonistia_errors", "Requests and pictures refused.", ["kind"], registry=registry)
        self.pictures = Counter(
            "canonistia_pictures",
            "Pictures answered, by deciding stage.",
            ["model", "stage"],
            registry=registry,
        )
        self.unsure = Counter("canonistia_unsure", "Pictures marked unsure.", ["model"], registry=registry)
        self.in_progress = Gauge(
            "canonistia_queue_pictures",
            "Pictures in progress, from upload to answer.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.batch = Histogram(
            "canonistia_batch_pictures", "Pictures per batch.", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self.decode = self._timer("decode", "Decoding and resizing one picture.")
        self.queue = self._timer("queue", "Wait of one picture for the models.")
        self.inference = self._timer("inference", "Both stages over one batch.")
        self.reloads = Counter("canonistia_reloads", "Reloads of bundles.", ["model", "result"], registry=registry)

    def _timer(self, name: str, help_text: str) -> Histogram:
        return Histogram(f"canonistia_{name}_seconds", help_text, buckets=_SECONDS, registry=self.registry)

    def text(self) -> bytes:
        """Return all metrics in the text exposition format."""
        return generate_latest(self._shown)
