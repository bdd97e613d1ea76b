"""The master's memory: what the workers of a service share, called by each of them over a pipe of its own.

The master loads no model, so it outlives its workers; what a worker held or counted is still there when it has died.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from limits.storage import MemoryStorage, Storage

from webapp.serving.held import Held
from webapp.serving.processes import Crew, Processes


@dataclass(frozen=True)
class Shared:
    """What the workers of a service share; by default, what a process has for itself.

    ``processes`` are those that count together; None where there is one worker.
    """

    held: Held = field(default_factory=Held)
    rates: Storage = field(default_factory=MemoryStorage)
    processes: Processes | None = None


class MasterMemory:
    """The shared objects, in the master. For each worker: prepare, fork, then :meth:`serve` here, :meth:`link` there.

    Their methods are called from several threads, take and return what can be pickled, and raise nothing.
    """

    def __init__(self, shared: Shared, crew: Crew) -> None:
        self._objects = {"held": shared.held, "rates": shared.rates, "crew": crew}
        self._ends: set[Connection] = set()  # the master's, one per worker
        self._next: tuple[Connection, Connection] | None = None  # the master's end and the worker's

    def prepare(self) -> None:
        """Open the pipe of the worker that is forked next."""
        self._next = Pipe()

    def serve(self) -> None:
        """Answer the worker that was forked, in a thread, until the worker ends."""
        assert self._next is not None
        end, of_worker = self._next
        of_worker.close()
        self._ends.add(end)
        threading.Thread(target=self._answer, args=(end,), name="master memory", daemon=True).start()

    def link(self, folder: Path | None) -> Shared:
        """Return what the workers share, for the worker that was forked; ``folder``: where several count together."""
        assert self._next is not None
        end, of_worker = self._next
        for other in (end, *self._ends):  # while a worker has the master's ends, others cannot see that it is gone
            other.close()
        call = _Link(of_worker).call
        held, rates, crew = (_Remote(call, name) for name in self._objects)
        return Shared(cast(Held, held), cast(Storage, rates), Processes(folder, cast(Crew, crew)) if folder else None)

    def _answer(self, end: Connection) -> None:
        with end, suppress(EOFError, OSError):  # the worker has ended
            while True:
                name, method, arguments = end.recv()
                end.send(getattr(self._objects[name], method)(*arguments))
        self._ends.discard(end)


class _Link:
    """A worker's end of its pipe; safe to call from threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def call(self, name: str, method: str, *arguments: object) -> Any:
        """Return what a method of one of the master's objects returns there; EOFError or OSError without a master."""
        with self._lock:
            self._connection.send((name, method, arguments))
            return self._connection.recv()


class _Remote:
    """Stands for one of the master's objects: its methods run there."""

    def __init__(self, call: Callable[..., Any], name: str) -> None:
        self._call, self._name = call, name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return partial(self._call, self._name, method)
