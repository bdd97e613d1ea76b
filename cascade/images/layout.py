"""The layout of a data set: which of its folders are splits, and which are classes."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cascade.errors import CanonistiaError
from cascade.images.folders import LabelledPicture, has_pictures, pictures_below, pictures_in, subfolders
from cascade.images.formats import SUFFIXES
from cascade.images.labels import label_fault, normalised

TRAINING, VALIDATION, TEST = "training", "validation", "test"
_STARTS = {"train": TRAINING, "val": VALIDATION, "test": TEST}
_ENDS = {"train": TRAINING, "training": TRAINING, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION}
_ENDS |= {"dev": VALIDATION, "test": TEST, "testing": TEST}


@dataclass(frozen=True)
class Layout:
    """What was understood of a folder.

    ``splits`` holds the folder of class folders of each split, by the standard name (``training``, ``validation``,
    ``test``); an unsplit tree has one, under the empty name. ``strays`` counts the pictures beside class folders,
    which belong to no class.
    """

    root: Path
    splits: dict[str, Path]
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of each split
    strays: int = 0

    def describe(self) -> str:
        """Return the layout in a line, for a person who has to agree with it."""
        parts = []
        for split, folder in self.splits.items():
            inside = os.path.relpath(folder, self.root)
            names = self.classes.get(split, ())
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            parts.append(f"{split or 'unsplit'} in {inside}: {len(names)} classes ({shown})")
        line = "; ".join(parts)
        return f"{line}; {self.strays} pictures beside class folders passed over" if self.strays else line


def split_of(name: str) -> str:
    """Return the split that a folder's name may mean: ``train_set``, ``Training``, ``seg_train``; empty for none."""
    plain = name.lower()
    for sign in "-. ":
        plain = plain.replace(sign, "_")
    if plain.rpartition("_")[2] in _ENDS:
        return _ENDS[plain.rpartition("_")[2]]
    return next((split for start, split in _STARTS.items() if plain.startswith(start)), "")


def layout_of(folder: Path) -> Layout:
    """Return the layout of a data set: splits of class folders under any usual names, or one tree of class folders.

    A folder that wraps the only folder with pictures is looked through. Names like those of splits count as splits
    where all folders beside have such names, too, and hold class folders: ``train`` beside ``bus`` is a class.

    Raises
    ------
    CanonistiaError
        There is no folder, it holds no class folders with pictures, or it can be understood in several ways; the
        message says what was seen.
    """
    root = _unwrapped(folder)
    children = _with_pictures(root)
    meant = {child: split_of(child.name) for child in children}
    named = [child for child in children if meant[child] and _holds_class_folders(child)]
    if not named:
        return _classes_in(folder, {"": root})
    others = [child for child in children if child not in named]
    if others:
        raise CanonistiaError(
            f"{folder} holds both splits ({_names(named)}) and other folders with pictures ({_names(others)}); move "
            "the class folders into a split"
        )
    splits: dict[str, Path] = {}
    for child in named:
        if meant[child] in splits:
            first = splits[meant[child]].name
            raise CanonistiaError(
                f"{folder} has two folders for the {meant[child]} split: {first} and {child.name}; leave one"
            )
        splits[meant[child]] = child
    ordered = {split: splits[split] for split in (TRAINING, VALIDATION, TEST) if split in splits}
    layout = _classes_in(folder, {split: _unwrapped(path) for split, path in ordered.items()}, set(ordered.values()))
    shared = set.intersection(*(set(names) for names in layout.classes.values()))
    if len(layout.classes) > 1 and not shared:
        raise CanonistiaError(
            f"{folder} looks like splits, and they have no class in common ({layout.describe()}); name the folders "
            "training/, validation/ and test/ with the same class folders inside, or use names that mean no split"
        )
    return layout


def read_class_folders(folder: Path, split: str = "") -> list[LabelledPicture]:
    """Return the pictures of one folder of class folders, in path order, with the composed form of each name.

    Raises
    ------
    CanonistiaError
        The folder is missing, holds no class folder with a picture, or has one whose name cannot be a label.
    """
    pictures: list[LabelledPicture] = []
    for child in subfolders(folder):
        found = pictures_below(child)
        try:
            child.name.encode()
        except UnicodeEncodeError as error:
            raise CanonistiaError(f"{child!r} is no class name in UTF-8; rename the folder") from error
        label = normalised(child.name)
        if found and (fault := label_fault(label)):
            raise CanonistiaError(f"{child!r} cannot be a class: its name {fault}; rename the folder")
        pictures += [LabelledPicture(path, label, split) for path in found]
    if not pictures:
        raise CanonistiaError(
            f"{folder} holds no pictures in class folders; expected one folder per class with pictures "
            f"({', '.join(sorted(SUFFIXES))}) inside"
        )
    return pictures


def read_data_set(folder: Path) -> list[LabelledPicture]:
    """Return the pictures of a data set (see :func:`layout_of`), each with its split.

    Raises
    ------
    CanonistiaError
        There is nothing to read, or the layout is doubtful.
    """
    layout = layout_of(folder)
    return [picture for split, path in layout.splits.items() for picture in read_class_folders(path, split)]


def class_names(pictures: Iterable[LabelledPicture]) -> list[str]:
    """Return the distinct labels in alphabetical order."""
    return sorted({picture.label for picture in pictures})


def _unwrapped(folder: Path) -> Path:
    """Return the folder itself, or the one inside that it only wraps."""
    while True:
        children = _with_pictures(folder)
        if len(children) != 1 or pictures_in(folder) or not _holds_class_folders(children[0]):
            return folder
        if split_of(children[0].name) and not split_of(folder.name):
            return folder  # the one split of a data set
        folder = children[0]


def _classes_in(root: Path, splits: dict[str, Path], beside: Iterable[Path] = ()) -> Layout:
    classes = {
        split: tuple(sorted({normalised(child.name) for child in _with_pictures(path)}))
        for split, path in splits.items()
    }
    strays = {path for folder in (*splits.values(), *beside) for path in pictures_in(folder)}
    return Layout(root, splits, classes, len(strays))


def _with_pictures(folder: Path) -> list[Path]:
    return [child for child in subfolders(folder) if has_pictures(child)]


def _holds_class_folders(folder: Path) -> bool:
    """Return whether most of what is inside are folders with pictures: a stray picture beside them does not count."""
    inside = _with_pictures(folder)
    return bool(inside) and len(pictures_in(folder)) <= len(inside)


def _names(folders: Iterable[Path]) -> str:
    return ", ".join(folder.name for folder in folders)
