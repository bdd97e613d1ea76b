"""Rows of tables: CSV, JSON lines and Parquet, by the names of their columns."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cascade.errors import CanonistiaError
from cascade.tables.parquet import read_parquet

_SHOWN = 3  # how many of the wrong rows an error names

Row = dict[str, Any]


def read_table(path: Path) -> list[Row]:
    """Return the rows of a table by the names of their columns; its format is that of its ending (see ``FORMATS``).

    Where a Parquet table holds the pictures themselves, ``path`` is a file that each was unpacked into.

    Raises
    ------
    CanonistiaError
        It cannot be read, or is no such table.
    """
    read = FORMATS.get(path.suffix.lower())
    if read is None:
        raise CanonistiaError(
            f"{path} is neither a folder with one folder per class nor a table; expected a file ending with "
            f"{', '.join(list(FORMATS)[:-1])} or {list(FORMATS)[-1]}"
        )
    try:
        return read(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CanonistiaError(f"{path} cannot be read ({error}); expected a table in UTF-8") from error


def text_of_cell(value: object) -> str:
    """Return a cell as text; what is missing (None, NaN) is empty, and 0 is not: it is a label like any other."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers, some of them missing, is one of floats
    return str(value).strip()


def refuse_rows(path: Path, wrong: list[str], what: str) -> None:
    """Raise CanonistiaError if any rows of a table are wrong; it names the first."""
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise CanonistiaError(f"{path} has {what} ({', '.join(wrong[:_SHOWN])}{more})")


def _read_csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _read_json_lines(path: Path) -> list[Row]:
    rows: list[Row] = []
    wrong = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if isinstance(row, dict):
                rows.append(row)
            else:
                wrong.append(f"line {number}")
    refuse_rows(path, wrong, "lines that are no JSON objects; write one object with path and label per line")
    columns = dict.fromkeys(name for row in rows for name in row)  # an object may leave out what it does not know
    return [{name: row.get(name) for name in columns} for row in rows]


FORMATS: Mapping[str, Callable[[Path], list[Row]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": read_parquet,
}
