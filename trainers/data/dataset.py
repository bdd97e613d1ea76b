"""Data sets for training: the splits of a folder, checked."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from cascade.errors import CanonistiaError
from cascade.images.folders import LabelledPicture
from cascade.images.layout import class_names
from cascade.images.manifest import labelled_pictures
from cascade.progress import track
from trainers.data.fingerprints import data_fingerprint, file_sha256, fingerprint, same_picture_groups

_FOLDS = 5  # an unsplit data set gives one fifth to validation
FEWEST_VALIDATION = 3  # pictures of every class: export fits two folds of two fits on them


@dataclass(frozen=True)
class DataSet:
    """The pictures of each split, the class names in the order of the class indices, and a hash of all files.

    ``seen_in_training`` counts the validation pictures that are byte-identical to a training picture.
    """

    classes: tuple[str, ...]
    training: tuple[LabelledPicture, ...]
    validation: tuple[LabelledPicture, ...]
    test: tuple[LabelledPicture, ...]
    fingerprint: str
    seen_in_training: int

    def counts(self, split: Literal["training", "validation", "test"]) -> dict[str, int]:
        """Return the number of pictures of each class in a split."""
        counted = Counter(picture.label for picture in getattr(self, split))
        return {name: counted[name] for name in self.classes}

    @property
    def weights_sha256(self) -> str | None:
        """Return a hash of the training pictures' weights; None where all count alike.

        The fingerprint does not know them: a run may start from one on the same pictures with other weights.
        """
        weights = np.array([picture.weight for picture in self.training])
        return None if (weights == weights[0]).all() else hashlib.sha256(weights.tobytes()).hexdigest()

    def targets(self, pictures: tuple[LabelledPicture, ...]) -> np.ndarray:
        """Return the class index of each picture, (N,) int64."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[picture.label] for picture in pictures], dtype=np.int64)


def load_data_set(folder: Path, seed: int) -> DataSet:
    """Return the splits of a folder or a manifest.

    Without a validation split a fifth of the training pictures is taken for it, with the seed; a test split stays as it
    is. So an unsplit data set is split four fifths to one.

    Raises
    ------
    CanonistiaError
        There is nothing to read, there are fewer than two classes, a split is missing or lacks a class, or only the
        validation or test split has a class.
    """
    pictures = labelled_pictures(folder)
    if not has_validation(pictures):
        kept = [picture for picture in pictures if picture.split == "test"]
        pictures = [*split_pictures([picture for picture in pictures if picture.split != "test"], seed), *kept]
    hashes = {p.path: file_sha256(p.path) for p in track(pictures, "reading the data set")}
    return data_set_of(folder, pictures, hashes)


def data_set_of(folder: Path, pictures: Sequence[LabelledPicture], hashes: Mapping[Path, str]) -> DataSet:
    """Return the data set of pictures with their splits and the sha256 of each file; ``folder`` is named in errors.

    Raises
    ------
    CanonistiaError
        There are fewer than two classes, a split is missing or lacks a class, or only validation or test has one.
    """
    trained = {hashes[p.path] for p in pictures if p.split == "training"}
    data_set = DataSet(
        classes=tuple(class_names([p for p in pictures if p.split == "training"])),
        training=_of_split(pictures, "training"),
        validation=_of_split(pictures, "validation"),
        test=_of_split(pictures, "test"),
        fingerprint=data_fingerprint((p.split, p.label, hashes[p.path]) for p in pictures),
        seen_in_training=sum(p.split == "validation" and hashes[p.path] in trained for p in pictures),
    )
    _check(folder, data_set)
    return data_set


def has_validation(pictures: Iterable[LabelledPicture]) -> bool:
    """Return whether a data set brings its own validation split."""
    return any(picture.split == "validation" for picture in pictures)


def too_few_to_export(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return which classes have too few validation pictures for export, in a sentence; empty if none has.

    ``counts`` holds the number of pictures by split and class. Where there is no validation split, it is the fifth that
    a training would take.
    """
    if "validation" in counts:
        expected = dict(counts["validation"])
    else:
        kept = [counts[split] for split in counts if split != "test"]
        expected = {label: sum(split[label] for split in kept) // _FOLDS for label in counts[next(iter(counts))]}
    few = [f"{label} {count}" for label, count in expected.items() if count < FEWEST_VALIDATION]
    if not few:
        return ""
    return (
        f"export needs {FEWEST_VALIDATION} validation pictures of every class, and there are fewer ({', '.join(few)}); "
        "add pictures before you train"
    )


def split_pictures(pictures: list[LabelledPicture], seed: int) -> list[LabelledPicture]:
    """Return the pictures with a split each: stratified by class, with copies of a picture in the same split."""
    groups = same_picture_groups([fingerprint(p.path) for p in track(pictures, "looking for copies of pictures")])
    labels = [picture.label for picture in pictures]
    different: dict[str, set[int]] = {}
    for label, group in zip(labels, groups, strict=True):
        different.setdefault(label, set()).add(group)
    fewest = min(different, key=lambda label: len(different[label]))
    if len(different[fewest]) < 2:
        raise CanonistiaError(
            f"class {fewest} has {len(different[fewest])} picture (copies count once), expected at least 2 to split it "
            "into training and validation; add pictures or remove the class"
        )
    folds = StratifiedGroupKFold(min(_FOLDS, len(different[fewest])), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # With copies a class has fewer groups than pictures, which is warned of; the check above is the right one.
        warnings.simplefilter("ignore", UserWarning)
        _, validation = next(folds.split(labels, labels, groups))
    chosen = set(validation.tolist())
    return [replace(p, split="validation" if index in chosen else "training") for index, p in enumerate(pictures)]


def _of_split(pictures: Sequence[LabelledPicture], split: str) -> tuple[LabelledPicture, ...]:
    return tuple(picture for picture in pictures if picture.split == split)


def _check(folder: Path, data_set: DataSet) -> None:
    for split in ("training", "validation"):
        if not getattr(data_set, split):
            raise CanonistiaError(
                f"{folder} has no {split} split; expected folders training/ and validation/ (or train/ and val/), "
                "or an unsplit folder with one folder per class, which is split automatically"
            )
    known = set(data_set.classes)
    if len(known) < 2:
        raise CanonistiaError(f"{folder} has one class, {data_set.classes[0]}; expected two or more to tell apart")
    for split in ("validation", "test"):
        pictures = getattr(data_set, split)
        labels = {picture.label for picture in pictures}
        if labels - known:
            raise CanonistiaError(
                f"{folder}: the {split} split has classes that training lacks ({', '.join(sorted(labels - known))}); "
                "add training pictures or remove them"
            )
        if pictures and known - labels:
            raise CanonistiaError(
                f"{folder}: the {split} split has no picture of {', '.join(sorted(known - labels))}; "
                "every class needs one in each split"
            )
