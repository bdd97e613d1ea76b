"""The server: gunicorn with one worker process of many threads, which holds the models."""

import select
import signal
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import TConn, ThreadWorker

from webapp.connection import PatientSocket
from webapp.reloading import Reloader
from webapp.settings import Settings

_GRACE = 60  # seconds for the requests in hand when the server is told to stop
# Beyond the pictures in hand: for refusals, health, metrics, the page, and clients that are slow to ask.
_SPARE_THREADS = 128


class _Worker(ThreadWorker):
    """A worker whose clients have a time limit, and which loads its bundles anew on SIGHUP."""

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection to a thread."""
        if not isinstance(conn.sock, PatientSocket):
            conn.sock = PatientSocket(fileno=conn.sock.detach())
            conn.sock.seconds = self.app.settings.upload_seconds
        super().enqueue_req(conn)

    def init_signals(self) -> None:
        """Install the signal handlers."""
        super().init_signals()
        signal.signal(signal.SIGHUP, lambda *_: self.app.reloader.ask())

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or cease to accept; the last time, take in whoever has connected already, and close the door at once.

        gunicorn leaves it open until the last request is answered, and then resets those who came meanwhile.
        """
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                while select.select([listener], [], [], 0)[0]:
                    self.accept(listener)
                listener.close()

    def run(self) -> None:
        """Serve until told to stop."""
        super().run()
        self.app.reloader.stop()


class _Arbiter(Arbiter):
    """The master process; on SIGHUP the worker loads its bundles beside the old ones, and is not replaced."""

    def handle_hup(self) -> None:
        """Pass the signal on."""
        self.kill_workers(signal.SIGHUP)


class Server(BaseApplication):
    """Serves the application that ``create`` returns; it is called in the worker, which owns the sessions.

    ``reloader`` is asked on SIGHUP, and stopped when the worker ends.
    """

    def __init__(
        self, create: Callable[[], Flask], reloader: Reloader, settings: Settings, host: str, port: int
    ) -> None:
        self.settings = settings
        self.reloader = reloader
        self._create = create
        self._bind = f"{host}:{port}"
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings."""
        settings: dict[str, Any] = {
            "bind": self._bind,
            "workers": 1,
            "threads": self.settings.queue + _SPARE_THREADS,
            "worker_class": _Worker,
            "worker_connections": 4 * (self.settings.queue + _SPARE_THREADS),
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
