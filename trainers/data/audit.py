"""The audit of a data set: its content and its faults."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cascade.images.folders import LabelledPicture, PassedOver, passed_over, pictures_below
from cascade.images.layout import class_names, layout_of
from cascade.images.manifest import is_listed, labelled_pictures, root_of
from cascade.progress import track
from cascade.threads import in_order, processors
from trainers.data.fingerprints import Fingerprint, fingerprint, identical_groups, near_pairs


@dataclass(frozen=True)
class Unreadable:
    """A file that cannot be decoded."""

    path: str
    error: str


@dataclass(frozen=True)
class SamePicture:
    """Files of the same picture: ``identical`` byte by byte, or near-identical by perceptual hash."""

    paths: tuple[str, ...]
    identical: bool
    across_splits: bool
    across_labels: bool


@dataclass(frozen=True)
class Audit:
    """What ``check-data`` reports; sizes are (width, height) in pixels.

    ``passed_over`` counts what is no picture, by its ending or another reason; ``empty`` names the folders without a
    picture, which are no classes.
    """

    layout: str  # what was understood of a folder, in words; empty for a manifest
    pictures: int
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]  # split -> class -> pictures
    modes: dict[str, int]
    smallest: tuple[int, int] | None
    median: tuple[int, int] | None
    largest: tuple[int, int] | None
    unreadable: tuple[Unreadable, ...]
    same: tuple[SamePicture, ...]
    empty: tuple[str, ...]
    passed_over: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Examined:
    """The pictures of a data set with the fingerprint of each; ``is_folder`` unless tables named them."""

    root: Path
    is_folder: bool
    pictures: tuple[LabelledPicture, ...]
    prints: tuple[Fingerprint, ...]


def examine(source: Path, added: Sequence[Path] = ()) -> Examined:
    """Read every picture of a data set, a folder or a manifest, and of others that are added to it.

    Pictures that are added to a data set without splits lose their splits, and those that are added without one to a
    data set with splits are for training. If any picture names its source, or others are added, every picture has one:
    that of a folder's is the folder's name, and that of a manifest without the column the manifest's name.

    Raises
    ------
    CanonistiaError
        A data set holds no labelled pictures.
    """
    pictures = _of_source(source)
    more = [picture for other in added for picture in _of_source(other)]
    if pictures[0].split:
        pictures += [replace(picture, split=picture.split or "training") for picture in more]
    else:
        pictures += [replace(picture, split="") for picture in more]
    if not added and all(picture.source == _name(source) for picture in pictures):
        pictures = [replace(picture, source="") for picture in pictures]
    return Examined(root_of(source), not is_listed(source), tuple(pictures), fingerprints(pictures))


def fingerprints(pictures: Sequence[LabelledPicture]) -> tuple[Fingerprint, ...]:
    """Return the fingerprint of each picture; several threads read, because decoding leaves the interpreter free."""
    found = in_order(lambda picture: fingerprint(picture.path), pictures, processors())
    return tuple(track(found, "reading pictures", len(pictures)))


def _of_source(source: Path) -> list[LabelledPicture]:
    return [replace(picture, source=picture.source or _name(source)) for picture in labelled_pictures(source)]


def _name(source: Path) -> str:
    return source.resolve().stem if source.is_file() else source.resolve().name


def audit(examined: Examined) -> Audit:
    """Return the audit of a data set; paths in it are relative to its root."""
    folder, pictures, prints = examined.root, examined.pictures, examined.prints
    sizes = sorted((item.size for item in prints if item.size), key=lambda size: size[0] * size[1])
    splits = sorted({picture.split for picture in pictures}, key=("training", "validation", "test", "").index)
    names = class_names(list(pictures))
    empty = _empty_folders(folder) if examined.is_folder else []
    passed = passed_over(folder) if examined.is_folder else PassedOver()
    counted = Counter((picture.split, picture.label) for picture in pictures)
    return Audit(
        layout=layout_of(folder).describe() if examined.is_folder else "",
        pictures=len(pictures),
        classes=tuple(names),
        counts={split or "all": {name: counted[split, name] for name in names} for split in splits},
        modes=dict(Counter(item.mode for item in prints if item.mode)),
        smallest=sizes[0] if sizes else None,
        median=sizes[len(sizes) // 2] if sizes else None,
        largest=sizes[-1] if sizes else None,
        unreadable=tuple(
            Unreadable(os.path.relpath(picture.path, folder), item.error)
            for picture, item in zip(pictures, prints, strict=True)
            if item.error
        ),
        same=tuple(_same_pictures(folder, pictures, prints)),
        empty=tuple(str(path.relative_to(folder)) for path in empty),
        passed_over=dict(passed.reasons),
    )


def _empty_folders(folder: Path) -> list[Path]:
    below = [path for path in folder.rglob("*") if path.is_dir() and not _is_hidden(path, folder)]
    return sorted(path for path in below if not pictures_below(path))


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _same_pictures(
    folder: Path, pictures: Sequence[LabelledPicture], prints: Sequence[Fingerprint]
) -> list[SamePicture]:
    def describe(members: Sequence[int], identical: bool) -> SamePicture:
        return SamePicture(
            paths=tuple(os.path.relpath(pictures[index].path, folder) for index in members),
            identical=identical,
            across_splits=len({pictures[index].split for index in members}) > 1,
            across_labels=len({pictures[index].label for index in members}) > 1,
        )

    known = [index for index, item in enumerate(prints) if item.sha256]
    groups = identical_groups([prints[index].sha256 for index in known])
    same = [describe([known[position] for position in group], True) for group in groups]
    readable = [index for index, item in enumerate(prints) if item.perceptual is not None]
    if readable:
        bits = np.stack([item.perceptual for item in prints if item.perceptual is not None])  # (N, 64)
        for first, second in near_pairs(bits):
            pair = readable[first], readable[second]
            if prints[pair[0]].sha256 != prints[pair[1]].sha256:
                same.append(describe(pair, False))
    return same
