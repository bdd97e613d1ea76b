"""Sources: from the inputs of a command to the pictures that they name."""

import codecs
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from cascade.errors import UsageError
from cascade.images.folders import PictureFilter, walk
from cascade.inputs.containers import container_items, is_container
from cascade.inputs.item import Item, failed_item, file_item, folder_items
from cascade.inputs.remote import is_address, remote_items

STDIN = "-"


def check_inputs(inputs: Iterable[str], exclude: Sequence[str] = ()) -> None:
    """Check that every input names something, and every folder holds a picture that is not excluded.

    Raises
    ------
    UsageError
        There is no such file, folder or list, no file matches the pattern, or a folder holds no picture.
    """
    for name in inputs:
        if name == STDIN or is_address(name) or os.path.lexists(name):
            if name != STDIN and os.path.isdir(name):
                _check_folder(name, PictureFilter(exclude))
            continue
        if name.startswith("@"):
            if not Path(name[1:]).is_file():
                raise UsageError(f"there is no list '{name[1:]}'; expected a file with one path per line")
        elif not glob.has_magic(name):
            raise UsageError(f"path '{name}' does not exist; expected a picture, a folder, an archive or a pattern")
        elif next(glob.iglob(name, recursive=True), None) is None:
            raise UsageError(f"no file matches the pattern '{name}'; expected one or more")


def no_pictures(where: str, chosen: PictureFilter) -> UsageError:
    """Return the error that says that there is nothing to do, and what was passed over."""
    passed = chosen.passed.describe()
    expected = "expected files with an ending such as .jpg or .png"
    return UsageError(f"no pictures below {where}; {expected}" + (f" ({passed})" if passed else ""))


def _check_folder(name: str, chosen: PictureFilter) -> None:
    if next(walk(Path(name), chosen), None) is None:
        raise no_pictures(name, chosen)


def items_of_inputs(inputs: Iterable[str], chosen: PictureFilter | None = None) -> Iterator[Item]:
    """Yield the pictures that inputs name, in the order of the inputs.

    An input is a picture, a folder (in path order, subfolders included), a container (see
    :mod:`cascade.inputs.containers`), an address of any of these, a pattern (``**`` matches any number of folders),
    ``@FILE`` for a list with one path per line, or ``-`` for a list on standard input. ``chosen`` says what is passed
    over inside of folders, containers and addresses and of what a pattern matches, and counts it.
    """
    chosen = chosen or PictureFilter()
    for name in inputs:
        if os.path.lexists(name) or is_address(name):
            yield from _items_of_name(name, chosen)
        elif name == STDIN:
            yield from _items_of_lines(sys.stdin.buffer, chosen)
        elif name.startswith("@"):
            with Path(name[1:]).open("rb") as lines:
                yield from _items_of_lines(lines, chosen)
        else:
            if next(glob.iglob(name, recursive=True), None) is None:
                yield failed_item(name, "cannot be opened: No such file or directory")
            for path in _files_of_pattern(name, chosen):
                yield from _items_of_path(path, chosen)


def picture_count(inputs: Iterable[str], exclude: Sequence[str] = ()) -> int | None:
    """Return how many pictures files, folders, patterns and lists name, without opening any.

    None where archives, addresses or standard input are among them: that would take as long as the work itself.
    """
    total = 0
    for name in _names_of_inputs(inputs, PictureFilter(exclude)):
        path = Path(name)
        if name == STDIN or is_address(name) or is_container(name):
            return None
        total += sum(1 for _ in walk(path, PictureFilter(exclude))) if path.is_dir() else 1
    return total


def _names_of_inputs(inputs: Iterable[str], chosen: PictureFilter) -> Iterator[str]:
    """Yield the inputs with patterns and lists in files replaced by what they name."""
    for name in inputs:
        if name == STDIN or os.path.lexists(name) or is_address(name):
            yield name
        elif name.startswith("@"):
            with Path(name[1:]).open("rb") as lines:
                yield from _lines(lines)
        else:
            yield from map(os.fspath, _files_of_pattern(name, chosen))


def _files_of_pattern(pattern: str, chosen: PictureFilter) -> Iterator[Path]:
    for path in sorted(map(Path, glob.iglob(pattern, recursive=True))):
        if path.is_dir():
            continue
        if chosen.is_excluded(path.as_posix()):
            chosen.pass_over(path.name, "excluded")
        else:
            yield path


def _items_of_lines(lines: BinaryIO, chosen: PictureFilter) -> Iterator[Item]:
    for name in _lines(lines):
        if "\0" in name:
            yield failed_item(name, "holds zero bytes, as no path does; save the list as UTF-8, one path per line")
        else:
            yield from _items_of_name(name, chosen)


def _lines(lines: BinaryIO) -> Iterator[str]:
    """Yield the lines of a list in UTF-8 or, with its mark at the beginning, UTF-16; names need not be text."""
    wide = _first_bytes(lines).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = io.TextIOWrapper(lines, "utf-16" if wide else "utf-8-sig", "replace" if wide else "surrogateescape", "\n")
    try:
        for line in text:
            if name := line.rstrip("\r\n"):
                yield name
    finally:
        text.detach()  # standard input stays open


def _first_bytes(file: BinaryIO) -> bytes:
    return file.peek(2)[:2] if isinstance(file, io.BufferedReader) else b""


def _items_of_name(name: str, chosen: PictureFilter) -> Iterator[Item]:
    yield from remote_items(name, chosen) if is_address(name) else _items_of_path(Path(name), chosen)


def _items_of_path(path: Path, chosen: PictureFilter) -> Iterator[Item]:
    if path.is_dir():
        yield from folder_items(path, chosen)
    elif is_container(path.name) and path.is_file():
        yield from container_items(os.fspath(path), lambda: path.open("rb"), chosen)
    else:
        yield file_item(path)
