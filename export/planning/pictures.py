"""The pictures of a fit: checked, with copies kept apart, and split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cascade.errors import CanonistiaError, PictureError
from cascade.evaluation.evaluation import labelled_pictures as evaluated_pictures
from cascade.images.folders import LabelledPicture
from cascade.images.layout import class_names
from cascade.images.unreadable import unreadable
from export.planning.ladder import FEWEST_TO_TUNE
from trainers.data.audit import Examined, examine, fingerprints
from trainers.data.cleaning import Cleaned, clean
from trainers.data.dataset import FEWEST_VALIDATION, DataSet, data_set_of, has_validation, too_few_to_export
from trainers.data.fingerprints import Fingerprint

_VALIDATION = 5  # an unsplit data set gives one picture in so many to validation
_FEWEST_TRAINING = 2  # pictures of a class: out-of-fold probabilities need two
_FEWEST_OF_CLASS = FEWEST_VALIDATION * _VALIDATION  # pictures; a fifth of fewer is too few to fit rules on
_CONFUSED = 0.05  # share of pictures that look like one of another class; above it, looks do not tell copies


@dataclass(frozen=True)
class CheckedPictures:
    """What a fit is trained on, every picture with its split; what is left out of it and why; and the test pictures.

    With ``cross_fit`` the pictures are so few that rules and figures are to come from all of them; validation is then
    only what the trainings are watched on. ``remarks`` are sentences for the user.
    """

    data: DataSet
    cleaned: Cleaned
    test: tuple[LabelledPicture, ...]
    remarks: tuple[str, ...]
    cross_fit: bool = False


def check_pictures(photos: Path, test: Path | None, seed: int) -> CheckedPictures:
    """Read every picture once, and return those to train on.

    Unreadable pictures, copies, and pictures with two labels are left out as by ``check-data --fix``; of a picture that
    several splits have, test keeps it before validation before training. Without a validation split a fifth of each
    class is taken for it, at least three pictures. ``test`` replaces the data set's own test split.

    Raises
    ------
    CanonistiaError
        There is nothing to read, a class has too few pictures, a split lacks a class, or a test picture cannot be read
        or is of an unknown class.
    """
    given = examine(photos)
    if test:
        given = _added(given, _test_pictures(test, given))
    cleaned, by_look = _cleaned(given)
    away = {picture.path for picture in given.pictures if test and picture.split == "test"}
    left_out = [entry for entry in cleaned.left_out if entry[0].path not in away]
    kept = [picture for picture in cleaned.kept if picture.path not in away]
    if test and not any(picture.split != "test" for picture in kept):
        raise CanonistiaError(f"every picture of {photos} is also in {test}; test on pictures that are not trained on")
    _check_counts(photos, class_names([p for p in given.pictures if p.split != "test"]), kept)
    own = has_validation(kept)
    split = kept if own else _split(kept, seed)
    hashes = {p.path: one.sha256 for p, one in zip(given.pictures, given.prints, strict=True)}
    data = data_set_of(photos, split, hashes)
    few = too_few_to_export({"validation": data.counts("validation")})
    if few:
        raise CanonistiaError(f"{photos}: {few}")
    cross_fit = not own and are_few(data)
    return CheckedPictures(
        data=data,
        cleaned=Cleaned(tuple(split), tuple(left_out)),
        test=tuple(p for p in given.pictures if p.path in away) if test else data.test,
        remarks=_remarks(photos, data, left_out, by_look, cross_fit),
        cross_fit=cross_fit,
    )


def are_few(data: DataSet) -> bool:
    """Return whether a data set that brings no validation split is so small that nothing should be held out of it.

    It is while no network is fine-tuned on it: heads on frozen networks are trained again in a moment, and below
    ``FEWEST_TO_TUNE`` training pictures the fifth that is held out, at most 250, gives figures within four points at
    best. It also is where half of the classes have fewer than fifteen pictures: a fifth of them is fewer than the
    three that rules need.
    """
    pictures = Counter(picture.label for picture in (*data.training, *data.validation))
    return len(data.training) < FEWEST_TO_TUNE or float(np.median(list(pictures.values()))) < _FEWEST_OF_CLASS


def _test_pictures(test: Path, given: Examined) -> list[LabelledPicture]:
    known = class_names([picture for picture in given.pictures if picture.split != "test"])
    return [replace(picture, split="test") for picture in evaluated_pictures(test, tuple(known))]


def _added(given: Examined, test: Sequence[LabelledPicture]) -> Examined:
    """Return the examined pictures with those of a test set in place of their own test split."""
    prints = fingerprints(test)
    bad = [(p.path, PictureError(one.error)) for p, one in zip(test, prints, strict=True) if one.error]
    if bad:
        raise unreadable(bad)
    own = [pair for pair in zip(given.pictures, given.prints, strict=True) if pair[0].split != "test"]
    return replace(
        given, pictures=(*(picture for picture, _ in own), *test), prints=(*(one for _, one in own), *prints)
    )


def _cleaned(given: Examined) -> tuple[Cleaned, bool]:
    """Return the pictures without faults, and whether copies were also known by their looks.

    Where many pictures look like one of another class, as drawings and textures may, looks do not tell: then only
    files of the same bytes are copies.
    """
    cleaned = clean(given)
    if cleaned.conflicts <= _CONFUSED * len(given.pictures):
        return cleaned, True
    return clean(replace(given, prints=tuple(_without_looks(one) for one in given.prints))), False


def _without_looks(one: Fingerprint) -> Fingerprint:
    return replace(one, perceptual=None)


def _check_counts(photos: Path, labels: Sequence[str], kept: Sequence[LabelledPicture]) -> None:
    """Raise CanonistiaError when a class has too few pictures to train and to validate."""
    split = has_validation(kept)
    counted = Counter(picture.label for picture in kept if picture.split in ("", "training"))
    needed = _FEWEST_TRAINING if split else _FEWEST_TRAINING + FEWEST_VALIDATION
    few = [f"{label} ({counted[label]})" for label in labels if counted[label] < needed]
    if few:
        where = "training pictures" if split else "pictures"
        raise CanonistiaError(
            f"{photos} has too few {where} of {', '.join(few)}; copies count once; expected at least {needed} of every "
            "class; add pictures, or remove the class"
        )


def _split(pictures: Sequence[LabelledPicture], seed: int) -> list[LabelledPicture]:
    """Return the pictures with validation taken out of those that are not for testing, by class."""
    random = np.random.default_rng(seed)
    chosen: set[int] = set()
    for label in class_names(pictures):
        of_class = [i for i, picture in enumerate(pictures) if picture.label == label and picture.split != "test"]
        count = max(FEWEST_VALIDATION, len(of_class) // _VALIDATION)
        chosen.update(random.permutation(of_class)[:count].tolist())
    return [
        picture if picture.split == "test" else replace(picture, split="validation" if number in chosen else "training")
        for number, picture in enumerate(pictures)
    ]


def _remarks(
    photos: Path, data: DataSet, left_out: Sequence[tuple[LabelledPicture, int, str]], by_look: bool, cross_fit: bool
) -> tuple[str, ...]:
    training, validation, classes = len(data.training), len(data.validation), len(data.classes)
    if cross_fit:
        remarks = [
            f"{photos}: {training + validation:,} pictures of {classes} classes, too few to hold any out: rules and "
            "figures come from cross-fitting, every picture answered by heads that were not trained on it"
        ]
    else:
        remarks = [f"{photos}: {training:,} training and {validation:,} validation pictures of {classes} classes"]
    if left_out:
        reasons = Counter(_reason(reason) for _, _, reason in left_out)
        listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        remarks.append(f"left out: {listed}; data.left_out.csv lists them")
    if not by_look:
        remarks.append(
            "many pictures look like one of another class, so that only files of the same bytes count as copies"
        )
    return tuple(remarks)


def _reason(text: str) -> str:
    if text.startswith("unreadable"):
        return "unreadable"
    return "with two labels" if text.startswith("two labels") else "duplicate"
