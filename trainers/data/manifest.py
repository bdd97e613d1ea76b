"""Manifests: data sets as tables of ``path,label,split``, written; see :mod:`cascade.images.manifest` for reading."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cascade.files import write_text
from cascade.images.folders import LabelledPicture
from cascade.images.manifest import COLUMNS, SOURCE, WEIGHT
from cascade.images.names import text_of


def picture_rows(pictures: Sequence[LabelledPicture], folder: Path) -> tuple[tuple[str, ...], list[dict[str, object]]]:
    """Return columns and rows of pictures for a manifest below ``folder``, with source and weight if any has one."""
    sources = (SOURCE,) if any(picture.source for picture in pictures) else ()
    weights = (WEIGHT,) if any(picture.weight != 1 for picture in pictures) else ()
    columns = (*COLUMNS, *sources, *weights)
    rows: list[dict[str, object]] = []
    for picture in pictures:
        file = os.path.relpath(picture.path, folder)
        cells = {"path": file, "label": picture.label, "split": picture.split}
        cells |= {SOURCE: picture.source, WEIGHT: f"{picture.weight:g}"}
        rows.append({name: cells[name] for name in columns})
    return columns, rows


def write_pictures(path: Path, pictures: Sequence[LabelledPicture]) -> None:
    """Write pictures as a manifest, whole or not at all."""
    columns, rows = picture_rows(pictures, path.parent)
    write_manifest(path, rows, columns)


def write_manifest(path: Path, rows: Iterable[Mapping[str, object]], columns: tuple[str, ...] = COLUMNS) -> None:
    """Write a table as CSV, whole or not at all; names that are no text are written as one."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: text_of(cell) if isinstance(cell, str) else cell for name, cell in row.items()})
    write_text(path, text.getvalue())
