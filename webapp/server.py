"""The server: gunicorn with one worker process of many threads, which holds the models."""

import selectors
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn, ThreadWorker

from webapp.requests.connection import PatientSocket, is_readable
from webapp.serving.limits import allowed_files, give_back_freed_memory
from webapp.serving.reloading import Reloader
from webapp.settings import Settings

_GRACE = 60  # seconds for the requests in hand when the server is told to stop
_KEEPALIVE = 5  # seconds that a silent connection stays open
_HEADER_SECONDS = 10
_BOOT_SECONDS = 300  # a worker that says nothing for so long is replaced: loading large bundles takes a while
_OTHER_FILES = 200  # open files that are no connections
# Beyond the pictures in hand: for refusals, health, metrics, the page, and clients that are slow to ask.
_SPARE_THREADS = 128


class _Worker(ThreadWorker):
    """A worker whose clients have a time limit, and which loads its bundles anew on SIGHUP."""

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection to a thread, a new one as soon as something came on it: silence costs no thread."""
        if not isinstance(conn.sock, PatientSocket):
            conn.sock = PatientSocket(fileno=conn.sock.detach())
            conn.sock.body_seconds = self.app.settings.upload_seconds
            conn.sock.header_seconds = min(_HEADER_SECONDS, conn.sock.body_seconds)
            conn.sock.setblocking(False)
            conn.timeout = time.monotonic() + self.cfg.keepalive
            self.pending_conns.append(conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))
        else:
            super().enqueue_req(conn)

    def handle(self, conn: TConn) -> object:
        """Answer a request; in its thread wait, too, until a client that is to close its connection does so.

        gunicorn waits for that in the thread that accepts, and nobody else is answered meanwhile.
        """
        kept = super().handle(conn)
        if not kept and conn.sock.fileno() != -1:
            close_graceful(conn.sock)
        return kept

    def init_signals(self) -> None:
        """Install the signal handlers; Ctrl-C reaches every process of a terminal, and the master deals with it."""
        super().init_signals()
        signal.signal(signal.SIGHUP, lambda *_: self.app.reloader.ask())
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or cease to accept; the last time, take in whoever has connected already, and close the door at once.

        gunicorn leaves it open until the last request is answered, and then resets those who came meanwhile.
        """
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                while is_readable(listener):
                    self.accept(listener)
                listener.close()

    def run(self) -> None:
        """Serve until told to stop."""
        give_back_freed_memory()
        super().run()
        self.app.reloader.stop()


class _Arbiter(Arbiter):
    """The master process; on SIGHUP the worker loads its bundles beside the old ones, and is not replaced."""

    def handle_hup(self) -> None:
        """Pass the signal on."""
        self.kill_workers(signal.SIGHUP)

    def handle_int(self) -> None:
        """Stop as on SIGTERM: what is in hand is answered. A second Ctrl-C does not wait for that."""
        self.handle_term()


class Server(BaseApplication):
    """Serves the application that ``create`` returns; it is called in the worker, which owns the sessions.

    ``reloader`` is asked on SIGHUP, and stopped when the worker ends.
    """

    def __init__(
        self,
        create: Callable[[], Flask],
        reloader: Reloader,
        settings: Settings,
        logger: type[Logger],
        host: str,
        port: int,
    ) -> None:
        self.settings = settings
        self.reloader = reloader
        self._create = create
        self._logger = logger
        self._bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings."""
        connections = 4 * (self.settings.queue + _SPARE_THREADS)
        settings: dict[str, Any] = {
            "bind": self._bind,
            "workers": 1,
            "threads": self.settings.queue + _SPARE_THREADS,
            "worker_class": _Worker,
            "worker_connections": min(connections, allowed_files() - _OTHER_FILES),
            "keepalive": _KEEPALIVE,
            "timeout": _BOOT_SECONDS,
            "logger_class": self._logger,
            "backlog": 2048,
            "graceful_timeout": _GRACE,
            "accesslog": None,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application."""
        return self._create()

    def run(self) -> None:
        """Serve until told to stop."""
        _Arbiter(self).run()
