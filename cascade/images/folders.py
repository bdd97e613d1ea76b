"""Folders: which pictures a tree holds, in which order, and what is passed over."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from cascade.errors import CanonistiaError, UsageError
from cascade.images.formats import HEAD, format_of, named_as_picture

# What cameras, network storage and operating systems leave among pictures.
_SYSTEM = frozenset(
    {"@eadir", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "system volume information", "lost+found"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini"}
)
_PLAIN_ENDING = re.compile(r"\.\w{1,12}", re.ASCII)
_MOST_REASONS, _SHOWN = 100, 6


@dataclass(frozen=True)
class LabelledPicture:
    """One file of a data set; ``split`` is ``training``, ``validation``, ``test`` or empty for an unsplit tree.

    ``source`` names the collection that it comes from, where the data set says so. ``weight`` is how much the picture
    counts in training, beside others of weight 1.
    """

    path: Path
    label: str
    split: str
    source: str = ""
    weight: float = 1.0


@dataclass
class PassedOver:
    """Counts what is passed over on the way through folders, by its reason: an ending, ``hidden``, ``excluded`` …"""

    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str) -> None:
        """Count one entry; there may be any number of endings, of which the first hundred are counted apart."""
        known = reason in self.reasons or len(self.reasons) < _MOST_REASONS
        self.reasons[reason if known else "with other endings"] += 1

    def describe(self) -> str:
        """Return the counts in a line, ``5 entries passed over: 3 .txt, 2 hidden``; empty where there are none."""
        total = self.reasons.total()
        most = self.reasons.most_common(_SHOWN)
        counted = ", ".join(f"{count:,} {reason}" for reason, count in most)
        rest = total - sum(count for _, count in most)
        more = f" and {rest:,} more" if rest else ""
        return f"{total:,} {'entry' if total == 1 else 'entries'} passed over: {counted}{more}" if total else ""


class PictureFilter:
    """Says which entries of folders and archives are looked at, and counts those that are passed over.

    Parameters
    ----------
    exclude
        Patterns as of ``.gitignore``: ``*.tmp`` or ``thumbs`` is a name at any depth, ``raw/*.jpg`` or ``/raw`` a path
        below the folder or inside of the archive, ``**`` any number of folders; with a ``/`` at the end only a folder.

    Raises
    ------
    UsageError
        A pattern is empty.
    """

    def __init__(self, exclude: Sequence[str] = ()) -> None:
        self.passed = PassedOver()
        self._patterns = [_parts_of(pattern) for pattern in exclude]

    @property
    def has_patterns(self) -> bool:
        """Return whether anything is excluded: without patterns no path need be made of a name."""
        return bool(self._patterns)

    def excludes(self, inside: str, is_folder: bool) -> bool:
        """Return whether a pattern matches an entry, by its path below the folder that was given."""
        parts = tuple(inside.split("/"))
        return any(
            (is_folder or not folders_only) and _matches(parts, wanted) for wanted, folders_only in self._patterns
        )

    def is_excluded(self, inside: str) -> bool:
        """Return whether a pattern matches a file or one of the folders around it."""
        if not self.has_patterns:
            return False
        parts = inside.split("/")
        around = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        return self.excludes(inside, False) or any(self.excludes(place, True) for place in around)

    def reason(self, inside: str) -> str:
        """Return why a file is passed over by its path alone; empty if it is, or may be, a picture."""
        *around, name = inside.split("/")
        if any(is_hidden(part) for part in around):
            return "in hidden folders"
        if self.is_excluded(inside):
            return "excluded"
        return _hidden(name) or (_ending(name) if named_as_picture(name) is False else "")

    def reason_of_folder(self, inside: str) -> str:
        """Return why a folder is passed over by its path alone; empty if it is looked into."""
        return _hidden(inside.rpartition("/")[2]) or ("excluded" if self.excludes(inside, True) else "")

    def pass_over(self, name: str, reason: str = "") -> None:
        """Count an entry, by the ending of its name where there is no other reason."""
        self.passed.add(reason or _ending(name))


@dataclass(frozen=True)
class _Tour:
    """What a walk knows on its way."""

    root: Path
    filter: PictureFilter
    followed: set[str]  # real paths of the root and of the folders that links led to


def pictures_below(folder: Path) -> list[Path]:
    """Return the picture files below a folder in path order (see :func:`walk`)."""
    return [found for found in walk(folder) if isinstance(found, Path)]


def has_pictures(folder: Path) -> bool:
    """Return whether any picture is below a folder."""
    return any(isinstance(found, Path) for found in walk(folder))


def walk(folder: Path, chosen: PictureFilter | None = None) -> Iterator[Path | OSError]:
    """Yield the picture files below a folder in path order, and in its turn why a folder inside could not be listed.

    A file is a picture by its ending, or, where its ending says nothing, by its first bytes. Hidden names and those of
    systems (``@eaDir``, ``Thumbs.db`` …) are passed over. A link to a folder outside of the tree is followed, once: a
    circle of links comes to an end, and no picture comes twice. One folder's names are held at a time, and those of the
    folders around it. What ``chosen`` excludes is passed over, too, and it counts all that is.
    """
    root = os.path.realpath(folder)
    yield from _walk(folder, _Tour(folder, chosen or PictureFilter(), {root}))


def passed_over(folder: Path) -> PassedOver:
    """Return what a walk through a folder passes over."""
    chosen = PictureFilter()
    for _ in walk(folder, chosen):
        pass
    return chosen.passed


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
                    tour.filter.pass_over(entry.name, reason)
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
    if reason := _hidden(entry.name):
        return reason
    is_folder = _is_folder(entry)
    if tour.filter.has_patterns and tour.filter.excludes(_inside(entry, folder, tour), is_folder):
        return "excluded"
    if is_folder:
        return "linked folder, seen already" if entry.is_symlink() and not _follows(entry, tour) else ""
    return "" if _is_picture(entry) else _ending(entry.name)


def _inside(entry: "os.DirEntry[str]", folder: Path, tour: _Tour) -> str:
    return (folder / entry.name).relative_to(tour.root).as_posix()


def _hidden(name: str) -> str:
    return "hidden" if name.startswith(".") else "of the system" if name.lower() in _SYSTEM else ""


def _ending(name: str) -> str:
    ending = os.path.splitext(name)[1].lower()
    if not ending:
        return "without an ending"
    return ending if _PLAIN_ENDING.fullmatch(ending) else "with other endings"


def _parts_of(pattern: str) -> tuple[tuple[str, ...], bool]:
    """Return a pattern as one pattern per part of a path, and whether only folders match it."""
    plain = pattern.strip("/")
    if not plain:
        raise UsageError(f"'{pattern}' excludes nothing; expected a name or a path with *", option="--exclude")
    anchored = "/" in pattern.rstrip("/")
    return (*(() if anchored else ("**",)), *plain.split("/")), pattern.endswith("/")


def _matches(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_matches(parts[start:], wanted[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _matches(parts[1:], wanted[1:])


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
    return bool(_hidden(name))
