"""Rows: the answers about files, as the command line writes them."""

import csv
import errno
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from cascade.errors import CanonistiaError
from cascade.files import written_whole
from cascade.images.names import text_of
from cascade.inputs.item import Item
from cascade.terminal import printable


@dataclass(frozen=True)
class Row:
    """One file's answer; in a row with an ``error`` the other columns are None."""

    path: str
    label_1: str | None = None
    probability_1: float | None = None
    label_2: str | None = None
    probability_2: float | None = None
    stage: str | None = None
    unsure: bool | None = None
    both: bool | None = None
    accepted: bool | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """An item with its row."""

    item: Item
    row: Row


RowWriter = Callable[[Row], object]

COLUMNS = tuple(field.name for field in fields(Row))
TABLE_ROWS = 1000


def journal_of(out: Path) -> Path:
    """Return the path of an output's journal, which is beside it: ``rows.csv.progress``."""
    return out.with_name(out.name + ".progress")


def check_output(out: Path, resume: bool, overwrite: bool) -> bool:
    """Return whether anything is left to do for an output, given what is there.

    Raises
    ------
    CanonistiaError
        There is an output or the journal of a stopped run, and neither ``resume`` nor ``overwrite`` is set.
    """
    journal = journal_of(out)
    if overwrite or not (out.exists() or journal.exists()):
        return True
    if resume:
        return journal.exists()
    if journal.exists():
        raise CanonistiaError(
            f"{out} was started and stopped; run again with --resume, or start again with --overwrite"
        )
    raise CanonistiaError(f"{out} exists; replace it with --overwrite, or choose another --out")


def cells(row: Row) -> dict[str, Any]:
    """Return a row as the cells of a table, all of them text, numbers or truth values that every reader takes."""
    error = row.error and row.error.encode("utf-8", "backslashreplace").decode()
    return asdict(row) | {"path": text_of(row.path), "error": error}


@contextmanager
def row_file(path: Path) -> Iterator[RowWriter]:
    """Yield a function that writes rows to a CSV or JSON lines file, by the ending of its name.

    The file appears under its name only when all rows are written.

    Raises
    ------
    CanonistiaError
        The file cannot be written.
    """
    try:
        with (
            written_whole(path) as partial,
            partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            yield _WRITERS[path.suffix.lower()](file)
    except OSError as error:
        raise unwritten(path, error) from error


def unwritten(out: Path, error: OSError) -> CanonistiaError:
    """Return the error about an output that cannot be written: a full disk keeps the rows of the run."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "free some space and run again with --resume" if full else "choose another --out"
    return CanonistiaError(f"{out} cannot be written ({error.strerror or error}); {advice}")


def _csv_writer(file: IO[str]) -> RowWriter:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    return lambda row: writer.writerow({name: _json_word(value) for name, value in cells(row).items()})


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of a CSV file of rows, the header first, each with its line break."""
    file = io.StringIO(newline="")
    write = _csv_writer(file)
    for row in rows:
        yield file.getvalue()
        file.seek(0)
        file.truncate()
        write(row)
    yield file.getvalue()


def _json_writer(file: IO[str]) -> RowWriter:
    return lambda row: file.write(json.dumps(cells(row)) + "\n")


_WRITERS = {".csv": _csv_writer, ".jsonl": _json_writer}


def _json_word(value: object) -> object:
    """Return a truth value as JSON writes it, and anything else as it is."""
    return str(value).lower() if isinstance(value, bool) else value


@contextmanager
def answer_table(show: Callable[[bytes], object]) -> Iterator[Callable[[Answered], object]]:
    """Yield a function that shows answers as a table, in blocks of ``TABLE_ROWS``, each as wide as needed."""
    block: list[Row] = []

    def finish() -> None:
        show(_table(block).encode())
        block.clear()

    def write(answered: Answered) -> None:
        block.append(answered.row)
        if len(block) == TABLE_ROWS:
            finish()

    yield write
    if block:
        finish()


def _table(rows: Iterable[Row]) -> str:
    lines: list[tuple[str, ...]] = [("picture", "most likely", "", "second", "", "decided by")]
    for row in rows:
        if row.error:
            lines.append((text_of(row.path), "error:", "", row.error, "", ""))
        else:
            marks = [name for name in ("unsure", "both", "accepted") if getattr(row, name)]
            mark = f"{row.stage} ({', '.join(marks)})" if marks else str(row.stage)
            first, second = f"{row.probability_1:.1%}", f"{row.probability_2:.1%}"
            lines.append((text_of(row.path), str(row.label_1), first, str(row.label_2), second, mark))
    lines = [tuple(map(printable, line)) for line in lines]
    answered = [line for line in lines if line[1] != "error:"]
    widths = [max(len(line[column]) for line in answered) for column in range(6)]
    widths[0] = max(len(line[0]) for line in lines)
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)
