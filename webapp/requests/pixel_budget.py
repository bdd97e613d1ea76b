"""The pixel budget: limits how many pixels are decoded at the same time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from webapp.problems import Problem


class PixelBudget:
    """Limits how many pixels are decoded at the same time: a picture being decoded takes the most memory."""

    def __init__(self, pixels: int) -> None:
        self._total = pixels
        self._left = pixels
        self._changed = threading.Condition()

    @contextmanager
    def share(self, pixels: int, deadline: float) -> Iterator[None]:
        """Hold this many pixels of the budget; a picture larger than the budget holds all of it.

        Raises
        ------
        Problem
            ``deadline`` when the pixels are not free by ``deadline``, a time on the monotonic clock.
        """
        wanted = min(pixels, self._total)
        with self._changed:
            if not self._changed.wait_for(lambda: self._left >= wanted, max(0, deadline - time.monotonic())):
                raise Problem("deadline", "The answer took too long; try again.", 5)
            self._left -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._left += wanted
                self._changed.notify_all()
