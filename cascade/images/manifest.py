"""Data sets in any of their forms: folders of classes, or tables of pictures with their labels.

A table has the columns ``path,label,split``; ``source`` may name the collection that each picture comes from, and
``weight`` may say how much it counts in training.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from cascade.errors import CanonistiaError
from cascade.images.folders import LabelledPicture, has_pictures, subfolders
from cascade.images.labels import label_fault, normalised
from cascade.images.layout import read_data_set, split_of
from cascade.images.names import name_of
from cascade.tables.rows import Row, read_table, refuse_rows, text_of_cell

COLUMNS = ("path", "label", "split")
SOURCE, WEIGHT = "source", "weight"  # columns that a manifest may have
# Columns that go by several names: the first that a table has is taken.
_PATHS = ("path", "file_name", "filename")
_LABELS = ("label", "class", "category")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face's folders of pictures


def labelled_pictures(source: Path) -> list[LabelledPicture]:
    """Return the pictures of a data set, in whatever form it is.

    A folder holds one folder per class, split or not; or Hugging Face's ``metadata.csv``, ``.jsonl`` or ``.parquet``
    with a label for each picture, beside the pictures or in each split; or nothing but Parquet tables, with their
    splits in their names. A file is a manifest: CSV, JSON lines or Parquet (see :func:`read_manifest`).

    Raises
    ------
    CanonistiaError
        The source has no pictures, or is no data set.
    """
    if not source.is_dir():
        return read_manifest(source)
    tables = _tables_in(source)
    if not tables:
        return read_data_set(source)
    pictures = [
        replace(picture, split=picture.split or split or _first_part(picture, source))
        for table, split in tables
        for picture in read_manifest(table)
    ]
    _refuse_partly_split(source, pictures)
    return pictures


def is_listed(source: Path) -> bool:
    """Return whether the pictures of a data set are listed by tables, and not found in class folders."""
    return not source.is_dir() or bool(_tables_in(source))


def root_of(source: Path) -> Path:
    """Return the folder that a data set's relative paths start from."""
    return source if source.is_dir() else source.parent


def read_manifest(path: Path) -> list[LabelledPicture]:
    """Return the pictures of a table in CSV, JSON lines or Parquet; other columns than those of a manifest are ignored.

    ``path`` may also be called ``file_name`` or ``filename``, and ``label`` ``class`` or ``category``. Paths are
    relative to the table's folder; a name that is no text is written as by :func:`cascade.images.names.text_of`. A
    Parquet table may hold the pictures themselves (see :mod:`cascade.tables.parquet`). A table without a split column,
    or with every split empty, is split for training as an unsplit folder is.

    Raises
    ------
    CanonistiaError
        A column or a file is missing, a label is empty or cannot be the name of a folder, a split is unknown or only
        some rows have one, a weight is no positive number, or two rows have the same path.
    """
    rows = read_table(path)
    if not rows:
        raise CanonistiaError(f"{path} has no rows; expected one per picture, with {', '.join(COLUMNS)}")
    named, labelled = (_column(rows[0], names) for names in (_PATHS, _LABELS))
    missing = [name for name, found in zip(COLUMNS, (named, labelled), strict=False) if found is None]
    if named is None or labelled is None:
        raise CanonistiaError(f"{path} lacks the column {' and '.join(missing)}; expected {', '.join(COLUMNS)}")
    pictures = []
    unknown, unlabelled, faulty, weightless = [], [], [], []
    for number, row in enumerate(rows, start=1):
        split, label, name = (
            text_of_cell(row.get("split")),
            normalised(text_of_cell(row[labelled])),
            text_of_cell(row[named]),
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
    _refuse_partly_split(path, pictures)
    refuse_missing(path, [picture.path for picture in pictures])
    counted = Counter(picture.path for picture in pictures)
    refuse_rows(
        path, [str(one) for one, times in counted.items() if times > 1], "paths that appear twice; remove one of each"
    )
    return pictures


def refuse_missing(table: Path, files: Iterable[Path]) -> None:
    """Raise CanonistiaError if a table names files that are not there; it names the first."""
    missing = [str(file) for file in files if not file.is_file()]
    refuse_rows(table, missing, f"missing files; correct the paths, which are relative to {table.parent.resolve()}")


def _refuse_partly_split(source: Path, pictures: Sequence[LabelledPicture]) -> None:
    if len({bool(picture.split) for picture in pictures}) > 1:
        empty = [f"row {number}" for number, picture in enumerate(pictures, start=1) if not picture.split]
        refuse_rows(source, empty, "rows without a split among rows with one; fill them in, or empty them all")


def _tables_in(folder: Path) -> list[tuple[Path, str]]:
    """Return the tables that list a folder's pictures, each with the split of all its rows; empty for class folders."""
    places = [folder, *(child for child in subfolders(folder) if split_of(child.name))]
    metadata = [(place / name, place) for place in places for name in _METADATA if (place / name).is_file()]
    if metadata:
        labelled = [_has_labels(table) for table, _ in metadata]
        if all(labelled):
            return [(table, "" if place == folder else split_of(place.name)) for table, place in metadata]
        return []  # captions and the like, beside class folders
    shards = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
    return [(shard, split_of(shard.stem)) for shard in shards] if shards and not has_pictures(folder) else []


def _has_labels(table: Path) -> bool:
    rows = read_table(table)
    return bool(rows) and _column(rows[0], _LABELS) is not None


def _column(row: Row, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in row), None)


def _first_part(picture: LabelledPicture, root: Path) -> str:
    """Return the split that the first folder on the way to a picture is named after; empty for none."""
    if not picture.path.is_relative_to(root):
        return ""
    parts = picture.path.relative_to(root).parts
    return split_of(parts[0]) if len(parts) > 1 else ""


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
