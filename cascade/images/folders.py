"""Labelled folders: which pictures a tree holds, under which split and class."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import CanonistiaError
from cascade.images.formats import SUFFIXES

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
    """One file of a data set; ``split`` is ``training``, ``validation``, ``test`` or empty for an unsplit tree."""

    path: Path
    label: str
    split: str


def pictures_below(folder: Path) -> list[Path]:
    """Return the picture files below a folder, by suffix, in path order; hidden names are passed over."""
    return [found for found in walk(folder) if isinstance(found, Path)]


def walk(folder: Path) -> Iterator[Path | OSError]:
    """Yield the picture files below a folder in path order, and in its turn why a folder inside could not be listed.

    One folder's names are held at a time, and those of the folders around it. Links to folders are not followed, so
    that a circle of them has no end to reach.
    """
    names: list[str] = []  # all of them, to sort: pairs with their kind would take twice the memory
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
        The folder is missing, or holds no class folder with a picture.
    """
    children = _subfolders(folder)
    for child in children:
        try:
            child.name.encode()
        except UnicodeEncodeError as error:
            raise CanonistiaError(f"{child!r} is no class name in UTF-8; rename the folder") from error
    pictures = [LabelledPicture(path, child.name, split) for child in children for path in pictures_below(child)]
    if not pictures:
        raise CanonistiaError(
            f"{folder} holds no pictures in class folders; expected one folder a class with pictures "
            f"({', '.join(sorted(SUFFIXES))}) inside"
        )
    return pictures


def split_folders(folder: Path) -> dict[str, Path]:
    """Return the split folders of a data set by their standard name; empty when the tree is not split.

    A folder with such a name that holds pictures itself is a class: vehicles may well have a class ``train``.

    Raises
    ------
    CanonistiaError
        Two folders mean the same split (``val`` beside ``validation``).
    """
    found: dict[str, Path] = {}
    for child in _subfolders(folder):
        name = None if _holds_pictures(child) else SPLIT_NAMES.get(child.name.lower())
        if name in found:
            raise CanonistiaError(f"{folder} has two folders for the {name} split: {found[name].name} and {child.name}")
        if name:
            found[name] = child
    return found


def read_data_set(folder: Path) -> list[LabelledPicture]:
    """Return the pictures of a data set: split folders of class folders, or one unsplit tree of class folders.

    Raises
    ------
    CanonistiaError
        Nothing to read, or folders that are neither splits nor classes stand beside the splits.
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
        raise CanonistiaError(f"{folder} is not a folder; expected one folder a class with pictures inside")
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
