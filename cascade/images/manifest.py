"""Manifests: data sets as tables with the columns ``path,label,split``, instead of folders of classes.

A column ``source`` may name the collection that each picture comes from; a column ``weight`` may say how much it counts
in training.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cascade.errors import CanonistiaError
from cascade.images.folders import LabelledPicture
from cascade.images.labels import label_fault, normalised
from cascade.images.layout import read_data_set, split_of
from cascade.images.names import name_of

COLUMNS = ("path", "label", "split")
SOURCE, WEIGHT = "source", "weight"  # columns that a manifest may have
_KINDS = (".csv", ".parquet")
_SHOWN = 3  # how many of the wrong rows an error names


def labelled_pictures(source: Path) -> list[LabelledPicture]:
    """Return the pictures of a data set: a folder with one folder per class, split or not, or a manifest.

    Raises
    ------
    CanonistiaError
        The source has no pictures, or is no data set.
    """
    return read_data_set(source) if source.is_dir() else read_manifest(source)


def root_of(source: Path) -> Path:
    """Return the folder that a data set's relative paths start from."""
    return source if source.is_dir() else source.parent


def read_manifest(path: Path) -> list[LabelledPicture]:
    """Return the pictures of a CSV or Parquet table: columns path, label, split, source, weight; others are ignored.

    Paths are relative to the manifest's folder; a name that is no text is written as by
    :func:`cascade.images.names.text_of`. A manifest without a split column, or with every split empty, is split for
    training as an unsplit folder is.

    Raises
    ------
    CanonistiaError
        A column or a file is missing, a label is empty or cannot be the name of a folder, a split is unknown or only
        some rows have one, a weight is no positive number, or two rows have the same path.
    """
    rows = read_table(path)
    if not rows:
        raise CanonistiaError(f"{path} has no rows; expected one per picture, with {', '.join(COLUMNS)}")
    missing = [name for name in COLUMNS[:2] if name not in rows[0]]
    if missing:
        raise CanonistiaError(f"{path} lacks the column {' and '.join(missing)}; expected {', '.join(COLUMNS)}")
    pictures = []
    unknown, unlabelled, faulty, weightless = [], [], [], []
    for number, row in enumerate(rows, start=1):
        split, label, name = (
            text_of_cell(row.get("split")),
            normalised(text_of_cell(row["label"])),
            text_of_cell(row["path"]),
        )
        if split and not split_of(split):
            unknown.append(f"row {number}: '{split}'")
        if not label or not name:
            unlabelled.append(f"row {number}")
        elif fault := label_fault(label):
            faulty.append(f"row {number}: {label!r} {fault}")
        weight = _weight(text_of_cell(row.get(WEIGHT)))
        if not weight:
            weightless.append(f"row {number}: {text_of_cell(row.get(WEIGHT))!r}")
        file, source = _file(path.parent, name), text_of_cell(row.get(SOURCE))
        pictures.append(LabelledPicture(file, label, split_of(split), source, weight or 1.0))
    refuse_rows(path, unknown, "unknown splits; expected training, validation, test, or nothing in every row")
    refuse_rows(path, unlabelled, "rows without a path or a label; fill them in or remove them")
    refuse_rows(path, weightless, "weights that are no positive numbers; correct them, or leave them empty for 1")
    refuse_rows(path, faulty, "labels that cannot be the name of a folder; rename them")
    if len({bool(picture.split) for picture in pictures}) > 1:
        empty = [f"row {number}" for number, picture in enumerate(pictures, start=1) if not picture.split]
        refuse_rows(path, empty, "rows without a split among rows with one; fill them in, or empty them all")
    refuse_missing(path, [picture.path for picture in pictures])
    counted = Counter(picture.path for picture in pictures)
    refuse_rows(
        path, [str(one) for one, times in counted.items() if times > 1], "paths that appear twice; remove one of each"
    )
    return pictures


def _file(folder: Path, text: str) -> Path:
    """Return the file whose name is no text and was written so, or, if there is none, that of the path as it stands."""
    meant = folder / name_of(text)
    return meant if "\\x" in text and meant.is_file() else folder / text


def _weight(text: str) -> float | None:
    """Return the weight in a cell, 1 of an empty one; None unless it is a positive number."""
    try:
        weight = float(text or 1)
    except ValueError:
        return None
    return weight if 0 < weight < math.inf else None


def text_of_cell(value: object) -> str:
    """Return a cell as text; what is missing (None, NaN) is empty, and 0 is not: it is a label like any other."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers, some of them missing, is one of floats
    return str(value).strip()


def read_table(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV or Parquet table, by the names of their columns.

    Raises
    ------
    CanonistiaError
        It cannot be read, or is no such table.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                return list(csv.DictReader(file))
        if path.suffix.lower() == ".parquet":
            from pyarrow import ArrowInvalid
            from pyarrow.parquet import read_table

            try:
                return read_table(path).to_pylist()
            except ArrowInvalid as error:
                raise CanonistiaError(f"{path} is no Parquet file ({error}); write it again") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CanonistiaError(f"{path} cannot be read ({error}); expected a table in UTF-8") from error
    raise CanonistiaError(
        f"{path} is neither a folder with one folder per class nor a table; expected a file ending with "
        f"{' or '.join(_KINDS)}"
    )


def refuse_missing(table: Path, files: Iterable[Path]) -> None:
    """Raise CanonistiaError if a table names files that are not there; it names the first."""
    missing = [str(file) for file in files if not file.is_file()]
    refuse_rows(table, missing, f"missing files; correct the paths, which are relative to {table.parent.resolve()}")


def refuse_rows(path: Path, wrong: list[str], what: str) -> None:
    """Raise CanonistiaError if any rows of a table are wrong; it names the first."""
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise CanonistiaError(f"{path} has {what} ({', '.join(wrong[:_SHOWN])}{more})")
