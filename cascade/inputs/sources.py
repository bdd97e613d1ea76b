"""Sources: from the inputs of a command to the pictures that they name."""

import codecs
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cascade.errors import UsageError
from cascade.inputs.containers import container_items, is_container
from cascade.inputs.item import Item, failed_item, file_item, folder_items
from cascade.inputs.remote import is_address, remote_items

STDIN = "-"


def check_inputs(inputs: Iterable[str]) -> None:
    """Check that every input names something.

    Raises
    ------
    UsageError
        There is no such file, folder or list, or no file matches the pattern.
    """
    for name in inputs:
        if name == STDIN or is_address(name) or os.path.lexists(name):
            continue
        if name.startswith("@"):
            if not Path(name[1:]).is_file():
                raise UsageError(f"there is no list '{name[1:]}'; expected a file with one path per line")
        elif not glob.has_magic(name):
            raise UsageError(f"path '{name}' does not exist; expected a picture, a folder, an archive or a pattern")
        elif next(glob.iglob(name, recursive=True), None) is None:
            raise UsageError(f"no file matches the pattern '{name}'; expected one or more")


def items_of_inputs(inputs: Iterable[str]) -> Iterator[Item]:
    """Yield the pictures that inputs name, in the order of the inputs.

    An input is a picture, a folder (in path order, subfolders included), a container (see
    :mod:`cascade.inputs.containers`), an address of any of these, a pattern (``**`` matches any number of folders),
    ``@FILE`` for a list with one path per line, or ``-`` for a list on standard input.
    """
    for name in inputs:
        if os.path.lexists(name) or is_address(name):
            yield from _items_of_name(name)
        elif name == STDIN:
            yield from _items_of_lines(sys.stdin.buffer)
        elif name.startswith("@"):
            with Path(name[1:]).open("rb") as lines:
                yield from _items_of_lines(lines)
        else:
            found = sorted(map(Path, glob.iglob(name, recursive=True)))
            if not found:
                yield failed_item(name, "cannot be opened: No such file or directory")
            for path in found:
                if not path.is_dir():
                    yield from _items_of_path(path)


def _items_of_lines(lines: BinaryIO) -> Iterator[Item]:
    """Yield the pictures of a list in UTF-8 or, with its mark at the beginning, UTF-16; names need not be text."""
    wide = _first_bytes(lines).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = io.TextIOWrapper(lines, "utf-16" if wide else "utf-8-sig", "replace" if wide else "surrogateescape", "\n")
    try:
        for line in text:
            name = line.rstrip("\r\n")
            if "\0" in name:
                shown = name.replace("\0", "\\x00")
                yield failed_item(shown, "holds zero bytes, as no path does; save the list as UTF-8, one path per line")
            elif name:
                yield from _items_of_name(name)
    finally:
        text.detach()  # standard input stays open


def _first_bytes(file: BinaryIO) -> bytes:
    return file.peek(2)[:2] if isinstance(file, io.BufferedReader) else b""


def _items_of_name(name: str) -> Iterator[Item]:
    yield from remote_items(name) if is_address(name) else _items_of_path(Path(name))


def _items_of_path(path: Path) -> Iterator[Item]:
    if path.is_dir():
        yield from folder_items(path)
    elif is_container(path.name) and path.is_file():
        yield from container_items(os.fspath(path), lambda: path.open("rb"))
    else:
        yield file_item(path)
