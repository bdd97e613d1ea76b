"""Cleaning: a manifest of a data set without its faults; no picture is changed."""

import os
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import CanonistiaError
from cascade.images.folders import LabelledPicture
from trainers.data.audit import Examined
from trainers.data.fingerprints import same_picture_groups
from trainers.data.manifest import picture_rows, write_manifest, write_pictures

# When several splits have the same picture, it stays in the first of these.
_KEPT_FIRST = ("test", "validation", "training", "")


@dataclass(frozen=True)
class Cleaned:
    """The pictures to keep, and those left out, each with its group and the reason; copies are of one group."""

    kept: tuple[LabelledPicture, ...]
    left_out: tuple[tuple[LabelledPicture, int, str], ...]

    @property
    def conflicts(self) -> int:
        """Return how many files show a picture that has two labels."""
        return sum(reason.startswith("two labels") for _, _, reason in self.left_out)


def clean(examined: Examined) -> Cleaned:
    """Return a data set without unreadable files, copies, and pictures with two labels.

    Of identical and near-identical files one is kept, from the test split before validation before training. All files
    of a picture with two labels are left out: only the owner of the data knows which label is right.
    """
    numbers = same_picture_groups(examined.prints)
    groups: dict[int, list[LabelledPicture]] = {}
    left_out: list[tuple[LabelledPicture, int, str]] = []
    for picture, fingerprint, number in zip(examined.pictures, examined.prints, numbers, strict=True):
        if fingerprint.error:
            left_out.append((picture, number, f"unreadable: {fingerprint.error}"))
        else:
            groups.setdefault(number, []).append(picture)
    kept = []
    for number, members in groups.items():
        labels = sorted({picture.label for picture in members})
        if len(labels) > 1:
            left_out += [(picture, number, f"two labels: {', '.join(labels)}") for picture in members]
            continue
        first, *copies = sorted(members, key=lambda picture: (_KEPT_FIRST.index(picture.split), picture.path))
        kept.append(first)
        left_out += [(picture, number, f"copy of {os.path.relpath(first.path, examined.root)}") for picture in copies]
    return Cleaned(tuple(sorted(kept, key=lambda picture: picture.path)), tuple(left_out))


def check_new(out: Path) -> Path:
    """Return the path of the table that is written beside a cleaned manifest.

    Raises
    ------
    CanonistiaError
        One of the two exists, there is no such folder, or the manifest's name has another ending.
    """
    if out.suffix.lower() != ".csv":
        raise CanonistiaError(f"{out} is no name for a manifest, expected one ending with .csv; choose another name")
    beside = out.with_suffix(".left_out.csv")
    for path in (out, beside):
        if path.exists():
            raise CanonistiaError(f"{path} exists; choose another name")
    if not out.parent.is_dir():
        raise CanonistiaError(f"{out.parent} is no folder, expected one to write {out.name} into; make it first")
    return beside


def write_cleaned(cleaned: Cleaned, out: Path) -> Path:
    """Write the kept pictures as a manifest and the left-out ones as a table beside it; return the table's path.

    Raises
    ------
    CanonistiaError
        One of the files exists, or cannot be written.
    """
    beside = check_new(out)

    left_out = [picture for picture, _, _ in cleaned.left_out]
    columns, rows = picture_rows(left_out, out.parent)
    reasons = [
        {**row, "group": group, "reason": reason}
        for row, (_, group, reason) in zip(rows, cleaned.left_out, strict=True)
    ]
    reasons.sort(key=lambda entry: (entry["group"], entry["path"]))
    write_manifest(beside, reasons, (*columns, "group", "reason"))
    write_pictures(out, cleaned.kept)
    return beside
