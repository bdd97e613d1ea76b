"""Reloading: a thread that has the service load bundles anew when asked to, or when they changed."""

import threading

from webapp.service import Service

_LOOK_EVERY = 2.0  # seconds


class Reloader:
    """Looks after the bundles of a service."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        """Ask for all bundles to be loaded anew; safe in a signal handler."""
        self._asked.set()

    def start(self, service: Service) -> None:
        """Begin to look after a service."""
        threading.Thread(target=self._look_after, args=(service,), name="reloader", daemon=True).start()

    def _look_after(self, service: Service) -> None:
        while True:
            asked = self._asked.wait(_LOOK_EVERY)
            self._asked.clear()
            service.reload(changed_only=not asked)
