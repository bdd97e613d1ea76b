"""Manifests: data sets as tables of ``path,label,split``, written; see :mod:`cascade.images.manifest` for reading."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from cascade.files import write_text
from cascade.images.manifest import COLUMNS
from cascade.images.names import text_of


def write_manifest(path: Path, rows: Iterable[Mapping[str, object]], columns: tuple[str, ...] = COLUMNS) -> None:
    """Write a table as CSV, whole or not at all; names that are no text are written as one."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: text_of(cell) if isinstance(cell, str) else cell for name, cell in row.items()})
    write_text(path, text.getvalue())
