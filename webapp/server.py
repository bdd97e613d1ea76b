"""The server: gunicorn with worker processes, each of which holds the models and answers in many threads.

The master listens, starts the workers, and keeps in its memory what they share; it loads no model.
"""

import selectors
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http.message import Request
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn, ThreadWorker

from webapp.keys import KeysError
from webapp.requests.connection import TimeLimitedSocket, is_readable
from webapp.requests.logs import native_output_logged
from webapp.serving.grpc_port import GrpcPort
from webapp.serving.limits import allowed_files, decode_with_one_thread, heartbeat_folder, return_freed_memory
from webapp.serving.listening import Listener, admit_nobody
from webapp.serving.master_memory import MasterMemory, Shared
from webapp.serving.processes import Crew, counting_folder, forget
from webapp.serving.readiness import Readiness
from webapp.serving.reloading import Reloader
from webapp.settings import Settings

_HELD_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP}
_GRACE = 60  # seconds for the requests in progress when the server stops
_KEEPALIVE = 5  # seconds that an idle connection stays open
_HEADER_SECONDS = 10
_BOOT_SECONDS = 300  # a worker that does not respond for this long is replaced; loading large bundles takes time
_OTHER_FILES = 200  # open files that are not connections
# In addition to the pictures in progress: for refusals, health, metrics, the page, and slow clients.
_SPARE_THREADS = 128


class _Worker(ThreadWorker):
    """A worker that limits the time of its clients, and reloads its bundles on SIGHUP."""

    def enqueue_req(self, conn: TConn) -> None:
        """Pass a connection to a thread; a new one only once it has sent bytes, so that idle ones use no thread."""
        if not isinstance(conn.sock, TimeLimitedSocket):
            conn.sock = TimeLimitedSocket(fileno=conn.sock.detach())
            conn.sock.body_seconds = self.app.settings.upload_seconds
            conn.sock.header_seconds = min(_HEADER_SECONDS, conn.sock.body_seconds)
            conn.sock.setblocking(False)
            conn.timeout = time.monotonic() + self.cfg.keepalive
            self.pending_conns.append(conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))
        else:
            super().enqueue_req(conn)

    def handle(self, conn: TConn) -> object:
        """Answer a request, and wait in the same thread until the client closes its connection.

        gunicorn waits for this in the thread that accepts connections, which blocks all other clients.
        """
        kept = super().handle(conn)
        if not kept and conn.sock.fileno() != -1:
            close_graceful(conn.sock)
        return kept

    def handle_request(self, req: Request, conn: TConn) -> object:
        """Answer a request; a client that waits for "100 Continue" gets it when its body is read, not before.

        gunicorn sends it first, and a body that is refused would arrive in vain. Where it was refused, the connection
        is closed: nobody knows if the client sends the body all the same.
        """
        if req._expected_100_continue:
            req._expected_100_continue = False
            req.must_close = True
            conn.sock.waiting = req
        try:
            return super().handle_request(req, conn)
        finally:
            conn.sock.waiting = None

    def init_signals(self) -> None:
        """Install the signal handlers; Ctrl-C reaches every process of a terminal, and only the master handles it."""
        super().init_signals()
        signal.signal(signal.SIGHUP, lambda *_: self.app.reloader.request_reload())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_SIGNALS)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Start or stop accepting; at shutdown, accept the clients already connected and close the listeners at once.

        gunicorn keeps the listeners open until the last request is answered, and then resets the waiting clients.
        """
        super().set_accept_enabled(enabled)
        if not (enabled or self.alive):
            if self.app.grpc_port:
                self.app.grpc_port.finish()
            for listener in self.sockets:
                # A signal before the first request closes them twice.
                while listener.sock is not None and is_readable(listener):
                    self.accept(listener)
                listener.close()

    def run(self) -> None:
        """Serve until a signal stops the server."""
        return_freed_memory()
        decode_with_one_thread()
        self.app.readiness.loaded()
        super().run()
        if self.app.grpc_port:
            self.app.grpc_port.stop()
        self.app.reloader.stop()


class _Arbiter(Arbiter):
    """The master process; on SIGHUP the workers stay, and load the new bundles beside the old ones."""

    def start(self) -> None:
        """Start to listen; a socket's file that systemd made is left to systemd at the end."""
        super().start()
        self.systemd = self.app.listener.inherited
        self.app.crew.workers = self.WORKERS

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers; no client connects any more, so that none is lost between their last look and the end.

        A socket that systemd made goes on: its clients wait for the next start.
        """
        if not self.app.listener.inherited:
            for listener in self.LISTENERS:
                admit_nobody(listener.sock)
        super().stop(graceful)

    def manage_workers(self) -> None:
        """Keep the workers running, and report once one is ready; called at least every second."""
        super().manage_workers()
        self.app.readiness.report(self.log)

    def spawn_worker(self) -> int:
        """Start a worker; it gets no signal before it has its own handlers: the master's would lose it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_SIGNALS)
        self.app.memory.prepare()
        try:
            pid = int(super().spawn_worker())  # the worker does not return
            self.app.memory.serve()
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_SIGNALS)

    def handle_hup(self) -> None:
        """Pass the signal on, and read the keys here, too: a worker that is started later has those of the master."""
        with suppress(KeysError):  # the worker logs it
            self.app.settings.keyring.reload()
        self.kill_workers(signal.SIGHUP)

    def handle_int(self) -> None:
        """Stop as on SIGTERM: requests in progress are answered. A second Ctrl-C does not wait for them."""
        self.handle_term()


class Server(BaseApplication):
    """Serves the application that ``create`` returns; ``create`` is called in each worker, which owns its sessions.

    ``reloader`` reloads on SIGHUP, and is stopped when the worker ends. At ``grpc_port``, if one is given, each worker
    has a server of its own, which ``create`` starts.
    """

    def __init__(
        self,
        create: Callable[[Shared], Flask],
        reloader: Reloader,
        settings: Settings,
        logger: type[Logger],
        listener: Listener,
        grpc_port: GrpcPort | None = None,
    ) -> None:
        self.settings = settings
        self.reloader = reloader
        self.listener = listener
        self.grpc_port = grpc_port
        self.readiness = Readiness()
        self.crew = Crew()
        self.memory = MasterMemory(Shared(), self.crew)
        self._folder: Path | None = None  # in which several workers count together
        self._create = create
        self._logger = logger
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings."""
        connections = 4 * (self.settings.queue + _SPARE_THREADS)
        settings: dict[str, Any] = {
            "bind": f"fd://{self.listener.socket.detach()}",
            "workers": self.settings.workers,
            "threads": self.settings.queue + _SPARE_THREADS,
            "worker_class": _Worker,
            "worker_connections": min(connections, allowed_files() - _OTHER_FILES),
            "keepalive": _KEEPALIVE,
            "timeout": _BOOT_SECONDS,
            "logger_class": self._logger,
            "graceful_timeout": _GRACE,
            "accesslog": None,
            "loglevel": "warning",
            "child_exit": self._forget,
            "control_socket_disable": True,
            "worker_tmp_dir": heartbeat_folder(),
            # What a proxy says is trusted with --behind-proxy alone, not because of the address that it comes from.
            "secure_scheme_headers": {},
            "forwarder_headers": "",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def _forget(self, _: Arbiter, worker: _Worker) -> None:
        if self._folder is not None:
            forget(worker.pid)

    def load(self) -> Flask:
        """Return the application; called in each worker."""
        return self._create(self.memory.link(self._folder))

    def run(self) -> None:
        """Serve until a signal stops the server."""
        with ExitStack() as stack:
            stack.enter_context(native_output_logged())
            if self.settings.workers > 1:
                self._folder = stack.enter_context(counting_folder())
            _Arbiter(self).run()
