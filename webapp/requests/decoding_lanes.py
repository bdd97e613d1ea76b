"""The lanes of decoding: small pictures never wait for pictures that take much memory or time."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from cascade.images.decoding import DecodingCost
from webapp.problems import Problem
from webapp.requests.connection import wait_for
from webapp.serving.limits import return_freed_pieces
from webapp.settings import MB

_HEAVY_BYTES = 20 * MB
_HEAVY_PIXELS = 4_000_000
_LIGHT_MEMORY, _HEAVY_MEMORY = 64 * MB, 256 * MB
_MOST_WAITING = 32  # heavy pictures of one client
# How much later a larger picture is due: it yields to smaller ones that come within that time.
_SECONDS_PER_PIXEL, _LONGEST_DELAY = 1e-6, 5.0  # seconds
_CLIENTS = 1024  # whose last turns are remembered
_RETRY_AFTER = 5  # seconds


@dataclass(eq=False)
class _Ticket:
    client: str
    memory: int
    due: float  # on the monotonic clock
    admitted: "Future[None]" = field(default_factory=Future)
    is_running: bool = False


class Lane:
    """Lets pictures be decoded in turn, by several threads and within a number of bytes.

    The next turn has the client whose last turn was the longest ago, and of its pictures the one that is due first.

    Parameters
    ----------
    threads
        How many pictures are decoded at the same time.
    memory
        Bytes that these may hold; a picture that needs more is decoded alone.
    most_waiting
        How many pictures of one client may wait; None: any number.
    """

    def __init__(self, threads: int, memory: int, most_waiting: int | None = None) -> None:
        self._free_threads = threads
        self._memory = self._free_memory = memory
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._waiting: list[_Ticket] = []
        self._last_turns: OrderedDict[str, float] = OrderedDict()  # by client; the oldest first

    @contextmanager
    def turn(self, cost: DecodingCost, client: str, deadline: float) -> Iterator[None]:
        """Wait for a turn, and hold it.

        Raises
        ------
        Problem
            ``busy`` where too many pictures of this client wait already; ``deadline`` when the turn does not come by
            ``deadline``, a time on the monotonic clock.
        ClientLeftError
            The client hung up.
        """
        due = time.monotonic() + min(cost.pixels * _SECONDS_PER_PIXEL, _LONGEST_DELAY)
        ticket = _Ticket(client, min(cost.memory, self._memory), due)
        with self._lock:
            waiting = sum(other.client == client for other in self._waiting)
            if self._most_waiting is not None and waiting >= self._most_waiting:
                raise Problem("busy", "Too many large pictures are waiting; try again in a moment.", _RETRY_AFTER)
            self._waiting.append(ticket)
            self._admit()
        try:
            wait_for(ticket.admitted, deadline)
            yield
        finally:
            with self._lock:
                self._end(ticket)
                self._admit()

    def _admit(self) -> None:
        while self._waiting and self._free_threads:
            ticket = min(self._waiting, key=lambda one: (self._last_turns.get(one.client, 0.0), one.due))
            if ticket.memory > self._free_memory:
                return
            self._waiting.remove(ticket)
            if ticket.admitted.set_running_or_notify_cancel():
                self._start(ticket)

    def _start(self, ticket: _Ticket) -> None:
        self._free_threads -= 1
        self._free_memory -= ticket.memory
        self._last_turns[ticket.client] = time.monotonic()
        self._last_turns.move_to_end(ticket.client)
        if len(self._last_turns) > _CLIENTS:
            self._last_turns.popitem(last=False)
        ticket.is_running = True
        ticket.admitted.set_result(None)

    def _end(self, ticket: _Ticket) -> None:
        if ticket.is_running:
            self._free_threads += 1
            self._free_memory += ticket.memory
        elif ticket in self._waiting:
            self._waiting.remove(ticket)


class DecodingLanes:
    """One lane for small pictures, which uses every core, and one for heavy pictures, which leaves one free."""

    def __init__(self, cores: int) -> None:
        self._light = Lane(cores, _LIGHT_MEMORY)
        self._heavy = Lane(max(1, cores - 1), _HEAVY_MEMORY, _MOST_WAITING)

    @contextmanager
    def turn(self, cost: DecodingCost, client: str, deadline: float) -> Iterator[None]:
        """Wait for a turn in the lane of a picture, and hold it (see :meth:`Lane.turn`)."""
        if cost.memory <= _HEAVY_BYTES and cost.pixels <= _HEAVY_PIXELS:
            with self._light.turn(cost, client, deadline):
                yield
        else:
            with self._heavy.turn(cost, client, deadline):
                try:
                    yield
                finally:
                    return_freed_pieces()
