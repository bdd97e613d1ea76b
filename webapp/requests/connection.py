"""The connection of the current request: its time limits, and whether the client is still connected."""

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
from gunicorn.http.message import Request

from webapp.problems import Problem

T = TypeVar("T")

HAS_LEFT = "canonistia.has_left"  # in the environ of a call over gRPC: a function that says whether its client hung up

_CHECK_EVERY = 0.25  # seconds between checks of a waiting client


class ClientLeftError(ConnectionError):
    """The client hung up."""


class TimeLimitedSocket(socket.socket):
    """A client's socket with time limits for receiving a request and for sending a reply.

    gunicorn switches its sockets to blocking before each request and then reads and writes without a time limit; this
    socket starts its clock at that switch. A client that is too slow is treated as if it hung up.
    """

    header_seconds: float = 10  # for the header of a request to arrive
    body_seconds: float = 60  # for the whole request to arrive, and for each piece of a reply to be sent
    timed_out = False
    waiting: Request | None = None  # for "100 Continue", before its client sends the body

    def setblocking(self, flag: bool) -> None:
        """Start the clock, or make the socket non-blocking."""
        if self.fileno() == -1:
            return  # gunicorn closes a connection twice
        if flag:
            self._receive_by = time.monotonic() + self.header_seconds
            self.settimeout(self.header_seconds)
        else:
            super().setblocking(False)

    def await_body(self) -> None:
        """Start the time limit of the request's body."""
        self._receive_by = time.monotonic() + self.body_seconds
        self.settimeout(self.body_seconds)

    def request_body(self) -> None:
        """Tell a client that waits for it to send the body; the connection can be used again after that."""
        if self.waiting is not None:
            self.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting.must_close = False
            self.waiting = None

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return the bytes received; ConnectionResetError after the time limit."""
        limit = self.gettimeout()
        try:
            if limit:  # a shorter limit set by the caller stays
                self.settimeout(min(limit, max(0.001, self._receive_by - time.monotonic())))
            return super().recv(size, flags)
        except TimeoutError as error:
            self.timed_out = True
            raise ConnectionResetError(errno.ECONNRESET, "the client is too slow") from error

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all bytes; BrokenPipeError if the client does not read."""
        if self.gettimeout():
            self.settimeout(self.body_seconds)
        try:
            super().sendall(data, flags)
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from error


class TimeLimitedBody:
    """The body of a request; reading it raises Problem ``slow_upload`` if it does not arrive in time."""

    def __init__(self, body: IO[bytes], connection: TimeLimitedSocket) -> None:
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
            self._connection.request_body()
            yield
        except ParseException as error:
            raise Problem("malformed", "The body of the request has invalid HTTP chunks; send it again.") from error
        except ConnectionError as error:
            if self._connection.timed_out:
                raise Problem("slow_upload", "The upload took too long; send fewer or smaller pictures.") from error
            raise


def wait_for(answer: "Future[T]", deadline: float) -> T:
    """Return a future's result; ``deadline`` is a time on the monotonic clock.

    On either error below, the future is cancelled, which frees its place in the queue.

    Raises
    ------
    Problem
        ``deadline`` when the deadline has passed.
    ClientLeftError
        The client hung up.
    """
    while True:
        try:
            return answer.result(min(_CHECK_EVERY, max(0, deadline - time.monotonic())))
        except NotYetError:
            if answer.done():
                return answer.result()
        try:
            check_client_waits(deadline)
        except (Problem, ClientLeftError):
            answer.cancel()
            raise


def check_client_waits(deadline: float) -> None:
    """Raise Problem ``deadline`` after the deadline, ClientLeftError if the client of this request hung up."""
    connection, has_left = request.environ.get("gunicorn.socket"), request.environ.get(HAS_LEFT)
    if (connection is not None and _hung_up(connection)) or (has_left is not None and has_left()):
        raise ClientLeftError
    if time.monotonic() >= deadline:
        raise Problem("deadline", "The answer took too long; try again.", 5)


def client_address() -> str:
    """Return the address of the current request's client: behind a trusted proxy, the one that the proxy names.

    All clients of a Unix socket have one address.
    """
    return request.remote_addr or "unix"


def is_readable(connection: socket.socket) -> bool:
    """Return whether a socket has bytes to read, or was closed by the other end."""
    poll = select.poll()  # select.select supports no descriptor above 1023
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _hung_up(connection: socket.socket) -> bool:
    try:
        return is_readable(connection) and connection.recv(1, socket.MSG_PEEK) == b""
    except ConnectionError:
        return True
