"""Reloading: a thread that has the service load bundles anew when asked to, or when they changed."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the runtime is imported in the worker alone
    from webapp.serving.service import Service

_LOOK_EVERY = 2.0  # seconds

_LOG = logging.getLogger("canonistia.service")


class Reloader:
    """Looks after the bundles of a service, from :meth:`start` to :meth:`stop`."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._service: Service | None = None

    def ask(self) -> None:
        """Ask for all bundles to be loaded anew; safe in a signal handler."""
        self._woken.set()

    def start(self, service: "Service") -> None:
        """Begin to look after a service."""
        self._service = service
        self._thread = threading.Thread(target=self._look_after, args=(service,), name="reloader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and close the service: an interpreter that ends while threads of its models wait would hang."""
        self._stopping = True
        self._woken.set()
        if self._thread and self._service:
            self._thread.join()
            self._service.close()

    def _look_after(self, service: "Service") -> None:
        pool = ThreadPoolExecutor(1, "loader")
        while not self._stopping:
            asked = self._woken.wait(_LOOK_EVERY)
            self._woken.clear()
            if not self._stopping:
                # In a thread of its own, so that whatever goes wrong is logged and the next change is still seen.
                error = pool.submit(service.reload, changed_only=not asked).exception()
                if error:
                    _LOG.error("loading anew failed, the old bundle goes on", exc_info=error)
