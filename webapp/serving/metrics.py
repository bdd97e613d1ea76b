"""Metrics: counters and timers of the service, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one application, in its own registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "canonistia_requests", "Requests answered.", ["method", "route", "status"], registry=registry
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
            "canonistia_queue_pictures", "Pictures in progress, from upload to answer.", registry=registry
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
        return generate_latest(self.registry)
