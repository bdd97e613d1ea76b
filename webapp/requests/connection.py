"""The connection of the current request: how long it may take, and whether the client is still there."""

import errno
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from contextlib import contextmanager
from typing import IO, Any, TypeVar

from flask import request
from gunicorn.http.errors import ParseException

from webapp.problems import Problem

T = TypeVar("T")

_LOOK_EVERY = 0.25  # seconds between looks at a waiting client


class ClientLeftError(ConnectionError):
    """Nobody waits for the answer any more."""


class PatientSocket(socket.socket):
    """A client's socket with a time by which a request must have arrived, and by which a reply must leave.

    gunicorn switches its sockets to blocking before each request and then reads and writes without a time limit; this
    one takes that switch as the start of the clock. Whoever is too slow is treated as one who hung up.
    """

    header_seconds: float = 10  # until a request's head is there
    body_seconds: float = 60  # until the whole of it is there, and for each piece of a reply
    timed_out = False

    def setblocking(self, flag: bool) -> None:
        """Start the clock, or make the socket non-blocking."""
        if self.fileno() == -1:
            return  # gunicorn closes twice
        if flag:
            self._until = time.monotonic() + self.header_seconds
            self.settimeout(self.header_seconds)
        else:
            super().setblocking(False)

    def await_body(self) -> None:
        """Give the body of the request its time."""
        self._until = time.monotonic() + self.body_seconds
        self.settimeout(self.body_seconds)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what came; after the time is up, nothing more."""
        limit = self.gettimeout()
        try:
            if limit:  # a shorter limit of the caller's own stands
                self.settimeout(min(limit, max(0.001, self._until - time.monotonic())))
            return super().recv(size, flags)
        except TimeoutError as error:
            self.timed_out = True
            raise ConnectionResetError(errno.ECONNRESET, "the client is too slow") from error

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send everything; a client that does not read is left."""
        if self.gettimeout():
            self.settimeout(self.body_seconds)
        try:
            super().sendall(data, flags)
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from error


class PatientBody:
    """The body of a request; where it does not arrive in time, reading it raises the problem ``slow_upload``."""

    def __init__(self, body: IO[bytes], connection: socket.socket) -> None:
        self._body = body
        self._connection = connection

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes."""
        with self._problems():
            return self._body.read(size)

    def readline(self, size: int = -1) -> bytes:
        """Return a line."""
        with self._problems():
            return self._body.readline(size)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except ParseException as error:
            raise Problem("malformed", "The body of the request is not framed as HTTP says.") from error
        except ConnectionError as error:
            if getattr(self._connection, "timed_out", False):
                raise Problem("slow_upload", "The upload took too long; send smaller pictures, or fewer.") from error
            raise


def wait_for(answer: "Future[T]", until: float) -> T:
    """Return a future's result; ``until`` is on the monotonic clock.

    Raises
    ------
    Problem
        ``deadline`` when the time is up.
    ClientLeftError
        The client hung up. In both cases the future is cancelled: its place is free.
    """
    while True:
        try:
            return answer.result(min(_LOOK_EVERY, max(0, until - time.monotonic())))
        except NotYetError:
            if answer.done():
                return answer.result()
        try:
            check_wanted(until)
        except (Problem, ClientLeftError):
            answer.cancel()
            raise


def check_wanted(until: float) -> None:
    """Raise Problem ``deadline`` when the time is up, ClientLeftError when the client of this request hung up."""
    connection = request.environ.get("gunicorn.socket")
    if connection is not None and _hung_up(connection):
        raise ClientLeftError
    if time.monotonic() >= until:
        raise Problem("deadline", "The answer took too long; try again.", 5)


def is_readable(connection: socket.socket) -> bool:
    """Return whether something came on a socket, its end counting as something."""
    poll = select.poll()  # select.select knows no descriptor above 1023
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _hung_up(connection: socket.socket) -> bool:
    try:
        return is_readable(connection) and connection.recv(1, socket.MSG_PEEK) == b""
    except ConnectionError:
        return True
