"""Decoding: uploads become pictures, only so many pixels of them at once."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from webapp.problems import Problem


class PixelBudget:
    """Shares out how many pixels are decoded at once: a picture being decoded is the largest thing a request holds."""

    def __init__(self, pixels: int) -> None:
        self._most = pixels
        self._left = pixels
        self._changed = threading.Condition()

    @contextmanager
    def share(self, pixels: int, until: float) -> Iterator[None]:
        """Hold so many pixels of the budget, all of it for a picture that is larger.

        Raises
        ------
        Problem
            ``deadline`` when nothing is free ``until`` a time on the monotonic clock.
        """
        wanted = min(pixels, self._most)
        with self._changed:
            if not self._changed.wait_for(lambda: self._left >= wanted, max(0, until - time.monotonic())):
                raise Problem("deadline", "The answer took too long; try again.", 5)
            self._left -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._left += wanted
                self._changed.notify_all()
