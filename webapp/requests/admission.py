"""Admission: limits the pictures and bytes in progress. A request over the limit is refused at once, not queued."""

import threading

from webapp.problems import Problem
from webapp.serving.metrics import Metrics
from webapp.settings import Settings

_RETRY_AFTER = 1  # seconds; the queue turns over faster than that


class Admission:
    """Counts the pictures and the bytes in progress over all requests."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lock = threading.Lock()
        self._pictures = 0
        self._bytes = 0

    def acquire(self, pictures: int, size: int = 0) -> None:
        """Admit pictures and ``size`` bytes, or raise Problem ``busy``; bytes that come alone are never too many."""
        with self._lock:
            full = self._pictures + pictures > self._settings.queue
            if full or (size and self._bytes and self._bytes + size > self._settings.max_bytes_in_progress):
                raise Problem("busy", "The service is busy; try again in a moment.", _RETRY_AFTER)
            self._add(pictures, size)

    def release(self, pictures: int, size: int = 0) -> None:
        """Release what :meth:`acquire` admitted."""
        with self._lock:
            self._add(-pictures, -size)

    def _add(self, pictures: int, size: int) -> None:
        self._pictures += pictures
        self._bytes += size
        self._metrics.in_progress.set(self._pictures)
