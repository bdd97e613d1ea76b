"""Admission: how much the service takes in hand at once. What is over it is refused at once, not queued."""

import threading

from webapp.problems import Problem
from webapp.serving.metrics import Metrics
from webapp.settings import Settings

_RETRY_AFTER = 1  # seconds; the queue turns over faster than that


class Admission:
    """Counts the pictures and the bytes in hand over all requests."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lock = threading.Lock()
        self._pictures = 0
        self._bytes = 0

    def take(self, pictures: int, size: int = 0) -> None:
        """Take a share, or raise Problem ``busy``."""
        with self._lock:
            full = self._pictures + pictures > self._settings.queue
            if full or (self._bytes and self._bytes + size > self._settings.max_bytes_in_hand):
                raise Problem("busy", "The service has its hands full; try again in a moment.", _RETRY_AFTER)
            self._add(pictures, size)

    def give_back(self, pictures: int, size: int = 0) -> None:
        """Give a share back."""
        with self._lock:
            self._add(-pictures, -size)

    def _add(self, pictures: int, size: int) -> None:
        self._pictures += pictures
        self._bytes += size
        self._metrics.in_hand.set(self._pictures)
