"""Manifests: data sets as tables with the columns ``path,label,split``, instead of folders of classes."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cascade.errors import CanonistiaError
from cascade.files import write_text
from cascade.images.folders import LabelledPicture
from cascade.images.layout import read_data_set, split_of

COLUMNS = ("path", "label", "split")
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
    """Return the pictures of a CSV or Parquet table with the columns path, label and split; others are ignored.

    Paths are relative to the manifest's folder. A manifest without a split column, or with every split empty, is split
    for training as an unsplit folder is.

    Raises
    ------
    CanonistiaError
        A column or a file is missing, a label is empty, a split is unknown or only some rows have one, or two rows
        have the same path.
    """
    rows = _rows(path)
    if not rows:
        raise CanonistiaError(f"{path} has no rows; expected one per picture, with {', '.join(COLUMNS)}")
    missing = [name for name in COLUMNS[:2] if name not in rows[0]]
    if missing:
        raise CanonistiaError(f"{path} lacks the column {' and '.join(missing)}; expected {', '.join(COLUMNS)}")
    pictures = []
    unknown, unlabelled = [], []
    for number, row in enumerate(rows, start=1):
        split = str(row.get("split") or "").strip().lower()
        if split and not split_of(split):
            unknown.append(f"row {number}: '{split}'")
        label = str(row["label"] or "").strip()
        if not label or not row["path"]:
            unlabelled.append(f"row {number}")
        pictures.append(LabelledPicture(path.parent / str(row["path"]), label, split_of(split)))
    _refuse(path, unknown, "unknown splits; expected training, validation, test, or nothing in every row")
    _refuse(path, unlabelled, "rows without a path or a label; fill them in or remove them")
    if len({bool(picture.split) for picture in pictures}) > 1:
        empty = [f"row {number}" for number, picture in enumerate(pictures, start=1) if not picture.split]
        _refuse(path, empty, "rows without a split among rows with one; fill them in, or empty them all")
    _refuse(path, [str(p.path) for p in pictures if not p.path.is_file()], "missing files; correct the paths, which "
            f"are relative to {path.parent.resolve()}")  # fmt: skip
    known: set[Path] = set()
    twice = [str(p.path) for p in pictures if p.path in known or known.add(p.path)]  # type: ignore[func-returns-value]
    _refuse(path, twice, "paths that appear twice; remove one of each")
    return pictures


def write_manifest(path: Path, rows: Iterable[Mapping[str, object]], columns: tuple[str, ...] = COLUMNS) -> None:
    """Write a table as CSV, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                return list(csv.DictReader(file))
        if path.suffix == ".parquet":
            from pyarrow import ArrowInvalid
            from pyarrow.parquet import read_table

            try:
                return read_table(path).to_pylist()
            except ArrowInvalid as error:
                raise CanonistiaError(f"{path} is no Parquet file ({error}); write it again") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CanonistiaError(f"{path} cannot be read ({error}); expected a table in UTF-8") from error
    raise CanonistiaError(
        f"{path} is neither a folder with one folder per class nor a manifest; expected a file ending with "
        f"{' or '.join(_KINDS)}"
    )


def _refuse(path: Path, wrong: list[str], what: str) -> None:
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise CanonistiaError(f"{path} has {what} ({', '.join(wrong[:_SHOWN])}{more})")
