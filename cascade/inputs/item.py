"""Items: the pictures that a command is to classify, each with its name and a function that reads its bytes."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from cascade.errors import PictureError
from cascade.images.folders import PictureFilter, walk

MAX_FILE_BYTES = 400_000_000  # of one picture

Opener = Callable[[], IO[bytes]]  # opens a file that contains pictures, at its beginning


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to classify.

    ``size`` is in bytes, 0 if it is not known. Two items with the same name and ``stamp`` have the same bytes, as far
    as this is known without reading them; an empty stamp promises nothing. ``read`` returns the bytes of the file or
    raises :class:`PictureError`; with ``here``, only this process can call it, because the item is inside a file that
    this process has open.
    """

    name: str
    size: int
    stamp: str
    read: Callable[[], bytes]
    here: bool = False


def items_of(paths: Iterable[Path]) -> Iterator[Item]:
    """Yield the pictures of files and folders, in the order given and in path order below each folder."""
    for path in paths:
        yield from folder_items(path) if path.is_dir() else [file_item(path)]


def folder_items(folder: Path, chosen: PictureFilter | None = None) -> Iterator[Item]:
    """Yield the pictures below a folder in path order; a subfolder that cannot be listed is an item that fails."""
    for found in walk(folder, chosen):
        yield file_item(found) if isinstance(found, Path) else _unlisted(found)


def file_item(path: Path) -> Item:
    """Return a file as an item; whether it can be read is only known when it is read."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return Item(os.fspath(path), 0, "", partial(read_file, path))
    return Item(os.fspath(path), status.st_size, f"{status.st_size}:{status.st_mtime_ns}", partial(read_file, path))


def read_file(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises
    ------
    PictureError
        The file is missing, unreadable, larger than ``MAX_FILE_BYTES``, or not a regular file: a pipe has no end.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PictureError("cannot be opened: it is a folder, a pipe or a device; a file was expected")
        if status.st_size > MAX_FILE_BYTES:
            raise PictureError(f"has {status.st_size:,} bytes, over the limit of {MAX_FILE_BYTES:,}; make it smaller")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    except MemoryError as error:
        raise PictureError("does not fit into the memory that is left; make it smaller") from error


def failed_item(name: str, reason: str) -> Item:
    """Return an item for pictures that could not be listed; reading it raises the reason."""

    def fail() -> bytes:
        raise PictureError(reason)

    return Item(name, 0, "", fail, here=True)


def _unlisted(error: OSError) -> Item:
    return failed_item(os.fspath(error.filename), f"cannot be listed: {error.strerror}")
