"""Interruption: Ctrl-C and SIGTERM ask a training to save its state and end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Holds the name of the signal that came, or nothing; a second one ends the process as usual."""

    name = ""

    def ask(self, number: int, _: FrameType | None) -> None:
        """Note a signal, and let the next one through."""
        self.name = signal.Signals(number).name
        for other in _SIGNALS:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def interruptions() -> Iterator[Interruption]:
    """Give an object that says whether the process was asked to end; in a thread that is never known."""
    asked = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked.ask) for number in _SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
