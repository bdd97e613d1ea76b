"""Files and folders that are written completely, or not at all."""

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cascade.errors import CanonistiaError


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
    # Always short: a file system that allows the final name allows this one too.
    name = f".{zlib.crc32(os.fsencode(path.name)):08x}.{os.getpid()}"
    partial, old = path.with_name(f"{name}.partial"), path.with_name(f"{name}.old")
    remove(partial)
    try:
        yield partial
        for folder, _, files in os.walk(partial):
            for file in files:
                _sync(Path(folder, file))
            _sync_folder(Path(folder))
        if not partial.is_dir():
            _sync(partial)
        if path.is_dir() and not path.is_symlink():
            os.replace(path, old)  # a folder cannot be replaced in one step
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        remove(partial)
        remove(old)


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
