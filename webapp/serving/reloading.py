"""Reloading: a thread that reloads the bundles of a service on request, or when they changed."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from webapp.keys import Keyring, KeysError

if TYPE_CHECKING:  # the runtime is imported in the worker alone
    from webapp.serving.service import Service

_CHECK_EVERY = 2.0  # seconds

_LOG = logging.getLogger("canonistia.service")


class Reloader:
    """Watches the bundles of a service, from :meth:`start` to :meth:`stop`; on request, reads the keys again, too."""

    def __init__(self, keyring: Keyring | None = None) -> None:
        self._keyring = keyring
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._service: Service | None = None

    def request_reload(self) -> None:
        """Request a reload of all loaded bundles; safe in a signal handler."""
        self._wake.set()

    def start(self, service: "Service") -> None:
        """Start to watch a service."""
        self._service = service
        self._thread = threading.Thread(target=self._watch, args=(service,), name="reloader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and close the service: the interpreter would hang at exit while the threads of the models wait."""
        self._stopping = True
        self._wake.set()
        if self._thread and self._service:
            self._thread.join()
            self._service.close()

    def _reload_keys(self) -> None:
        try:
            if self._keyring is not None:
                self._keyring.reload()
        except KeysError as error:
            _LOG.error("the new keys are refused, the old ones stay in use: %s", error)

    def _watch(self, service: "Service") -> None:
        pool = ThreadPoolExecutor(1, "loader")
        while not self._stopping:
            requested = self._wake.wait(_CHECK_EVERY)
            self._wake.clear()
            if requested and not self._stopping:
                self._reload_keys()
            if not self._stopping:
                # In its own thread, so that every error is logged and the next change is still noticed.
                error = pool.submit(service.reload, changed_only=not requested).exception()
                if error:
                    _LOG.error("reloading failed; the old bundle stays in use", exc_info=error)
