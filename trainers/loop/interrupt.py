"""Interruption: Ctrl-C and SIGTERM ask a training to save its state and end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Holds the name of the signal that was received, or nothing; a second signal ends the process as usual."""

    name = ""

    def ask(self, number: int, _: FrameType | None) -> None:
        """Keep the name of a signal, and restore the usual handlers for the next one."""
        self.name = signal.Signals(number).name
        for other in _SIGNALS:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def interruptions() -> Iterator[Interruption]:
    """Yield an object that says whether the process was asked to end; outside of the main thread it never is."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.ask) for number in _SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
