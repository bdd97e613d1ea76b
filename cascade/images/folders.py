"""Labelled folders: which pictures a folder contains, with their split and class."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import CanonistiaError
from cascade.images.decoding import SUFFIXES

SPLIT_NAMES = {
    "training": "training",
    "train": "training",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class LabelledPicture:
    """One file of a data set; ``split`` is ``training``, ``validation``, ``test``, or empty without splits."""

    path: Path
    label: str
    split: str


def pictures_below(folder: Path) -> list[Path]:
    """Return the picture files below a folder, by suffix, in path order; hidden names are skipped."""
    return [found for found in walk(folder) if isinstance(found, Path)]


def walk(folder: Path) -> Iterator[Path | OSError]:
    """Yield the picture files below a folder in path order; a subfolder that cannot be listed yields its error.

    Only the names of one folder and of its parents are in memory. Links to folders are not followed, because they can
    form a circle.
    """
    names: list[str] = []  # sorted below; pairs of a name and its kind would take twice the memory
    folders: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    names.append(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        folders.add(entry.name)
    except OSError as error:
        yield error
        return
    names.sort()
    for name in names:
        if name in folders:
            yield from walk(folder / name)
        elif Path(name).suffix.lower() in SUFFIXES:
            yield folder / name


def read_class_folders(folder: Path, split: str = "") -> list[LabelledPicture]:
    """Return the pictures of one folder of class folders, in path order.

    Raises
    ------
    CanonistiaError
        The folder is missing, or has no class folder with a picture.
    """
    children = _subfolders(folder)
    for child in children:
        try:
            child.name.encode()
        except UnicodeEncodeError as error:
            raise CanonistiaError(f"{child!r} is no class name; expected UTF-8; rename the folder") from error
    pictures = [LabelledPicture(path, child.name, split) for child in children for path in pictures_below(child)]
    if not pictures:
        raise CanonistiaError(
            f"{folder} holds no pictures in class folders; expected one folder per class with pictures "
            f"({', '.join(sorted(SUFFIXES))}) inside"
        )
    return pictures


def split_folders(folder: Path) -> dict[str, Path]:
    """Return the split folders of a data set by their standard name; empty if there are no splits.

    A folder with such a name that directly contains pictures is a class: a data set of vehicles can have a class
    ``train``.

    Raises
    ------
    CanonistiaError
        Two folders have names of one split (``val`` and ``validation``).
    """
    found: dict[str, Path] = {}
    for child in _subfolders(folder):
        name = None if _holds_pictures(child) else SPLIT_NAMES.get(child.name.lower())
        if name in found:
            raise CanonistiaError(
                f"{folder} has two folders for the {name} split: {found[name].name} and {child.name}; keep one of them"
            )
        if name:
            found[name] = child
    return found


def read_data_set(folder: Path) -> list[LabelledPicture]:
    """Return the pictures of a data set: class folders, inside split folders or without splits.

    Raises
    ------
    CanonistiaError
        There are no pictures, or the folder contains both splits and other folders with pictures.
    """
    splits = split_folders(folder)
    if not splits:
        return read_class_folders(folder)
    strays = [child.name for child in _subfolders(folder) if child not in splits.values() and pictures_below(child)]
    if strays:
        raise CanonistiaError(
            f"{folder} holds both splits ({', '.join(p.name for p in splits.values())}) and other folders with "
            f"pictures ({', '.join(strays)}); move the class folders into a split"
        )
    return [picture for split, path in splits.items() for picture in read_class_folders(path, split)]


def class_names(pictures: list[LabelledPicture]) -> list[str]:
    """Return the distinct labels in alphabetical order."""
    return sorted({picture.label for picture in pictures})


def _holds_pictures(folder: Path) -> bool:
    return any(child.suffix.lower() in SUFFIXES and not child.name.startswith(".") for child in folder.iterdir())


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise CanonistiaError(f"{folder} is not a folder; expected a folder that contains one folder per class")
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
