"""The lock of an output: one process writes it at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cascade.errors import CanonistiaError
from cascade.files import hidden, remove

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def exclusive(path: Path, wait: bool = False, inside: bool = False) -> Iterator[None]:
    """Hold the lock of a file or folder that is written, which need not exist yet; its folder is made.

    With ``inside`` it is a folder that is written into: it is made, and the lock is in it, and not beside it.

    The lock is that of an open file beside it (flock), so it ends with the process, however that ends. What a killed
    process left unfinished under hidden names is removed. On a file system without locks, and on Windows, there is
    none: the user sees to it that two commands do not write the same output.

    Raises
    ------
    CanonistiaError
        Another process holds it, and ``wait`` is false, or nothing can be written there.
    """
    lock = hidden(path / path.name if inside else path, "lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = _locked(lock, path, wait)
    except OSError as error:
        raise CanonistiaError(f"{path} cannot be written ({error.strerror}); choose another place") from error
    if held is None:
        yield
        return
    try:
        for left in () if inside else path.parent.glob(hidden(path, "*.partial").name):
            remove(left)
        yield
    finally:
        lock.unlink(missing_ok=True)  # while it is held: whoever waits for it looks again
        os.close(held)


def _locked(lock: Path, path: Path, wait: bool) -> int | None:
    """Return the open lock file, held; None where there are no locks."""
    if fcntl is None:
        return None
    while True:
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(lock, held):
                return held
        except BlockingIOError:
            os.close(held)
            raise CanonistiaError(
                f"another process is writing {path}; wait until it has finished, or choose another place"
            ) from None
        except OSError:
            os.close(held)
            lock.unlink(missing_ok=True)
            return None
        os.close(held)


def _is_at(lock: Path, held: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(held))
    except FileNotFoundError:
        return False
