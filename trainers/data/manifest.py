"""Manifests: data sets as tables of ``path,label,split``, written; see :mod:`cascade.images.manifest` for reading."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from cascade.files import write_text
from cascade.images.manifest import COLUMNS


def write_manifest(path: Path, rows: Iterable[Mapping[str, object]], columns: tuple[str, ...] = COLUMNS) -> None:
    """Write a table as CSV, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
