"""Files and folders that are written completely, or not at all."""

import contextlib
import errno
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cascade.errors import CanonistiaError

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # of a file system without hard links


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` for a new file or folder, which replaces ``path`` when the block ends.

    The content is on disk before it is renamed, and the new name before this returns: a reader, or a process after a
    crash or a power cut, finds the old content or the new, never a part. If the block fails, nothing is left behind
    and ``path`` is unchanged.

    Raises
    ------
    OSError
        The disk is full, or a name cannot be written.
    """
    partial, old = _partial(path), aside(path)
    restore(path)
    try:
        yield partial
        for folder, _, files in os.walk(partial):
            for file in files:
                _sync(Path(folder, file))
            _sync_folder(Path(folder))
        if not partial.is_dir():
            _sync(partial)
        _take_place(partial, path, old)
        _sync_folder(path.parent)
    finally:
        restore(path)
        remove(partial)
        if os.path.lexists(path):  # else the old folder is all that is left
            remove(old)


def cache_folder() -> Path:
    """Return the folder of what can be made again: ``$CANONISTIA_CACHE``, else ``~/.cache/canonistia``."""
    return Path(os.environ.get("CANONISTIA_CACHE", Path.home() / ".cache" / "canonistia"))


def write_once(path: Path, content: bytes, mode: int = 0o666) -> bool:
    """Write a file whole unless there is one of that name; return whether it was written.

    Nothing is overwritten, even where several machines write the same name into a shared folder at once.

    Raises
    ------
    OSError
        The disk is full, or a name cannot be written; nothing is left behind.
    """
    partial = _partial(path)
    try:
        _create(partial, content, mode)
        try:
            os.link(partial, path)  # which replaces nothing, unlike a rename
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _create(path, content, mode)
    except FileExistsError:
        return False
    finally:
        remove(partial)
    _sync_folder(path.parent)
    return True


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a new file, or leave none behind."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            remove(path)
            raise


def _partial(path: Path) -> Path:
    """Return a hidden name for an unfinished file; in containers, processes of several machines have the same id."""
    return hidden(path, f"{os.getpid()}-{secrets.token_hex(4)}.partial")


def hidden(path: Path, ending: str) -> Path:
    """Return a hidden name beside ``path``, always short: a file system that allows its name allows this one too."""
    path = path.absolute()  # "." has no name
    return path.parent / f".{zlib.crc32(os.fsencode(path.name)):08x}.{ending}"


def aside(path: Path) -> Path:
    """Return where a folder is kept while another takes its place, which cannot be done in one step."""
    return hidden(path, "old")


def restore(path: Path) -> None:
    """Put back the folder that was moved aside for another one, if that one did not come.

    A process that was killed between the two leaves the old folder under a hidden name; whoever reads or writes
    ``path`` next calls this.
    """
    if not os.path.lexists(path) and os.path.isdir(aside(path)):
        with contextlib.suppress(OSError):  # another process was first, or the folder is read-only
            os.replace(aside(path), path)


def _take_place(partial: Path, path: Path, old: Path) -> None:
    while True:
        if path.is_dir() and not path.is_symlink():
            remove(old)
            os.replace(path, old)
        try:
            os.replace(partial, path)
        except OSError as error:
            # Between the two steps a reader may find nothing, and put the old folder back.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole (see :func:`written_whole`).

    Raises
    ------
    CanonistiaError
        The disk is full, or the file cannot be written; the old content is kept.
    """
    try:
        with written_whole(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise CanonistiaError(
            f"{path} could not be written ({error.strerror}, {len(content)} bytes); free some disk space and run again "
            "with --resume; the old file is kept"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole (see :func:`write_bytes`)."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # names of files need not be text


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    # Not every file system supports this; the files inside are synced in any case.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
