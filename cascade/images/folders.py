"""Folders: which pictures a tree holds, in which order, and what is passed over."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from cascade.errors import CanonistiaError
from cascade.images.formats import HEAD, format_of, named_as_picture

# What cameras, network storage and operating systems leave among pictures.
_SYSTEM = frozenset(
    {"@eadir", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "system volume information", "lost+found"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini"}
)


@dataclass(frozen=True)
class LabelledPicture:
    """One file of a data set; ``split`` is ``training``, ``validation``, ``test`` or empty for an unsplit tree.

    ``source`` names the collection that it comes from, where the data set says so.
    """

    path: Path
    label: str
    split: str
    source: str = ""


@dataclass
class PassedOver:
    """Counts what is passed over on the way through folders, by its reason: an ending, ``hidden``, ``excluded`` …"""

    reasons: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """Return the counts in a line, ``5 entries passed over: 3 .txt, 2 hidden``; empty where there are none."""
        total = self.reasons.total()
        counted = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())
        return f"{total:,} {'entry' if total == 1 else 'entries'} passed over: {counted}" if total else ""


@dataclass(frozen=True)
class _Tour:
    """What a walk knows on its way."""

    root: Path
    passed: PassedOver
    exclude: Sequence[str]
    followed: set[str]  # real paths of the root and of the folders that links led to


def pictures_below(folder: Path) -> list[Path]:
    """Return the picture files below a folder in path order (see :func:`walk`)."""
    return [found for found in walk(folder) if isinstance(found, Path)]


def has_pictures(folder: Path) -> bool:
    """Return whether any picture is below a folder."""
    return any(isinstance(found, Path) for found in walk(folder))


def walk(folder: Path, passed: PassedOver | None = None, exclude: Sequence[str] = ()) -> Iterator[Path | OSError]:
    """Yield the picture files below a folder in path order, and in its turn why a folder inside could not be listed.

    A file is a picture by its ending, or, where its ending says nothing, by its first bytes. Hidden names and those of
    systems (``@eaDir``, ``Thumbs.db`` …) are passed over. A link to a folder outside of the tree is followed, once: a
    circle of links comes to an end, and no picture comes twice. One folder's names are held at a time, and those of the
    folders around it.

    Parameters
    ----------
    passed
        Counts what is passed over.
    exclude
        Patterns with ``*``: of names, or, with a ``/`` in them, of paths below the folder.
    """
    root = os.path.realpath(folder)
    yield from _walk(folder, _Tour(folder, passed or PassedOver(), exclude, {root}))


def subfolders(folder: Path) -> list[Path]:
    """Return the folders inside a folder that may hold pictures, in the order of their names.

    Raises
    ------
    CanonistiaError
        It is no folder.
    """
    if not folder.is_dir():
        raise CanonistiaError(f"{folder} is not a folder; expected one folder per class with pictures inside")
    return sorted(child for child in folder.iterdir() if child.is_dir() and not is_hidden(child.name))


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures that a folder holds itself, not in folders inside."""
    with os.scandir(folder) as entries:
        return sorted(
            folder / entry.name
            for entry in entries
            if not is_hidden(entry.name) and not _is_folder(entry) and _is_picture(entry)
        )


def _walk(folder: Path, tour: _Tour) -> Iterator[Path | OSError]:
    names: list[str] = []  # all of them, to sort: pairs with their kind would take twice the memory
    folders: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if reason := _passed_over(entry, folder, tour):
                    tour.passed.reasons[reason] += 1
                    continue
                names.append(entry.name)
                if _is_folder(entry):
                    folders.add(entry.name)
    except OSError as error:
        yield error
        return
    names.sort()
    for name in names:
        if name in folders:
            yield from _walk(folder / name, tour)
        else:
            yield folder / name


def _passed_over(entry: "os.DirEntry[str]", folder: Path, tour: _Tour) -> str:
    """Return why an entry is passed over; empty for a picture or a folder."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.name.lower() in _SYSTEM:
        return "of the system"
    if tour.exclude and _is_excluded(folder / entry.name, tour):
        return "excluded"
    if _is_folder(entry):
        return "linked folder, seen already" if entry.is_symlink() and not _follows(entry, tour) else ""
    if _is_picture(entry):
        return ""
    return os.path.splitext(entry.name)[1].lower() or "without an ending"


def _is_excluded(path: Path, tour: _Tour) -> bool:
    inside = path.relative_to(tour.root).as_posix()
    return any(fnmatchcase(inside if "/" in pattern else path.name, pattern) for pattern in tour.exclude)


def _follows(entry: "os.DirEntry[str]", tour: _Tour) -> bool:
    """Return whether a link leads to a folder that is not in the tree, and note it."""
    target = os.path.realpath(entry.path)
    for known in tour.followed:
        if os.path.commonpath((known, target)) in (known, target):
            return False
    tour.followed.add(target)
    return True


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_picture(entry: "os.DirEntry[str]") -> bool:
    named = named_as_picture(entry.name)
    if named is not None:
        return named
    try:
        if not entry.is_file():
            return False
        with open(entry.path, "rb") as file:
            return format_of(file.read(HEAD)) is not None
    except OSError:
        return False


def is_hidden(name: str) -> bool:
    """Return whether a name is hidden, or one that systems leave among pictures."""
    return name.startswith(".") or name.lower() in _SYSTEM
