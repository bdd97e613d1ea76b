"""The connection of the current request: how long it may take, and whether the client is still there."""

import select
import socket
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from typing import IO, Any, TypeVar

from flask import request

from webapp.problems import Problem

T = TypeVar("T")

_LOOK_EVERY = 0.25  # seconds between looks at a waiting client


class ClientLeftError(ConnectionError):
    """Nobody waits for the answer any more."""


class PatientSocket(socket.socket):
    """A client's socket with a time by which the whole request must have arrived, and by which a reply must leave.

    gunicorn switches its sockets to blocking before each request and reads and writes without a time limit; this
    one takes that switch as the start of the clock. Whoever is too slow is treated as one who hung up.
    """

    seconds: float = 60
    timed_out = False

    def setblocking(self, flag: bool) -> None:
        """Start the clock, or make the socket non-blocking."""
        if flag:
            self._until = time.monotonic() + self.seconds
            self.settimeout(self.seconds)
        else:
            super().setblocking(False)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what came; after the time is up, nothing more."""
        try:
            if self.gettimeout():
                self.settimeout(max(0.001, self._until - time.monotonic()))
            return super().recv(size, flags)
        except TimeoutError as error:
            self.timed_out = True
            raise ConnectionResetError(104, "the client is too slow") from error

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send everything; a client that does not read is left."""
        if self.gettimeout():
            self.settimeout(self.seconds)
        try:
            super().sendall(data, flags)
        except TimeoutError as error:
            raise BrokenPipeError(32, "the client does not read") from error


class PatientBody:
    """The body of a request; where it does not arrive in time, reading it raises the problem ``slow_upload``."""

    def __init__(self, body: IO[bytes], connection: socket.socket) -> None:
        self._body = body
        self._connection = connection

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes."""
        try:
            return self._body.read(size)
        except ConnectionError as error:
            if getattr(self._connection, "timed_out", False):
                raise Problem("slow_upload", "The upload took too long; send smaller pictures, or fewer.") from error
            raise

    def readline(self, size: int = -1) -> bytes:
        """Return a line."""
        return self._body.readline(size)

    def __iter__(self) -> Any:
        return iter(self._body)


def wait_for(answer: "Future[T]", until: float) -> T:
    """Return a future's result; ``until`` is on the monotonic clock.

    Raises
    ------
    Problem
        ``deadline`` when the time is up.
    ClientLeftError
        The client hung up. In both cases the future is cancelled: its place is free.
    """
    connection = request.environ.get("gunicorn.socket")
    while True:
        try:
            return answer.result(min(_LOOK_EVERY, max(0, until - time.monotonic())))
        except NotYetError:
            if answer.done():
                raise
        left = connection is not None and _hung_up(connection)
        if left or time.monotonic() >= until:
            answer.cancel()
            if left:
                raise ClientLeftError
            raise Problem("deadline", "The answer took too long; try again.", 5)


def _hung_up(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    try:
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except ConnectionError:
        return True
