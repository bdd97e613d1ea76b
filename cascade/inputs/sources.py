"""Sources: from the words of a command to the pictures that they name."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cascade.errors import CanonistiaError
from cascade.inputs.containers import container_items, is_container
from cascade.inputs.item import Item, failed_item, file_item, folder_items
from cascade.inputs.remote import is_address, remote_items

STDIN = "-"


class InputError(CanonistiaError):
    """What a command was told to classify is not there."""


def check_words(words: Iterable[str]) -> None:
    """Check that every word names something.

    Raises
    ------
    InputError
        There is no such file, folder or list, and no file fits the pattern.
    """
    for word in words:
        if word == STDIN or is_address(word) or os.path.lexists(word):
            continue
        if word.startswith("@"):
            if not Path(word[1:]).is_file():
                raise InputError(f"there is no list '{word[1:]}'; expected a file with one path a line")
        elif not glob.has_magic(word):
            raise InputError(f"path '{word}' does not exist; expected a picture, a folder, an archive or a pattern")
        elif next(glob.iglob(word, recursive=True), None) is None:
            raise InputError(f"no file fits the pattern '{word}'")


def items_of_words(words: Iterable[str]) -> Iterator[Item]:
    """Yield the pictures that words name, in the order of the words.

    A word is a picture, a folder (in path order, with those inside it), a zip or tar archive, a Parquet file, an
    address of any of these, a pattern (``**`` goes through folders), ``@FILE`` for a list of paths, one a line, or
    ``-`` for a list on standard input.
    """
    for word in words:
        if os.path.lexists(word) or is_address(word):
            yield from _items_of_word(word)
        elif word == STDIN:
            yield from _items_of_lines(sys.stdin.buffer)
        elif word.startswith("@"):
            with Path(word[1:]).open("rb") as lines:
                yield from _items_of_lines(lines)
        else:
            found = sorted(Path(name) for name in glob.iglob(word, recursive=True))
            if not found:
                yield failed_item(word, "cannot be opened: No such file or directory")
            for path in found:
                if not path.is_dir():
                    yield from _items_of_path(path)


def _items_of_lines(lines: Iterable[bytes]) -> Iterator[Item]:
    for line in lines:
        if word := os.fsdecode(line.rstrip(b"\r\n")):
            yield from _items_of_word(word)


def _items_of_word(word: str) -> Iterator[Item]:
    yield from remote_items(word) if is_address(word) else _items_of_path(Path(word))


def _items_of_path(path: Path) -> Iterator[Item]:
    if path.is_dir():
        yield from folder_items(path)
    elif is_container(path.name) and path.is_file():
        yield from container_items(os.fspath(path), lambda: path.open("rb"))
    else:
        yield file_item(path)
