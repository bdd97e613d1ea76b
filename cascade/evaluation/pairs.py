"""Pictures that show two of the classes: whether an answer names both, and whether it says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import run_all, targets_of
from cascade.evaluation.metrics import exact_interval, share_with_interval
from cascade.images.labels import normalised
from cascade.images.manifest import refuse_missing
from cascade.inference.engine import Engine
from cascade.rules.cascade import CascadeOutput
from cascade.rules.probabilities import top_two
from cascade.tables.rows import read_table, refuse_rows, text_of_cell

COLUMNS = ("path", "class_a", "class_b")


@dataclass(frozen=True)
class PairPicture:
    """One file that shows two classes, neither of which is the first of the two."""

    path: Path
    class_a: str
    class_b: str


def read_pairs(path: Path, classes: Sequence[str]) -> list[PairPicture]:
    """Return the pictures of a table in CSV, JSON lines or Parquet with the columns path, class_a and class_b.

    Other columns are ignored. Paths are relative to the table's folder.

    Raises
    ------
    CanonistiaError
        A column or a file is missing, a row names a class that is not among ``classes``, or one class twice.
    """
    rows = read_table(path)
    if not rows:
        raise CanonistiaError(f"{path} has no rows; expected one per picture, with {', '.join(COLUMNS)}")
    if missing := [name for name in COLUMNS if name not in rows[0]]:
        raise CanonistiaError(f"{path} lacks the column {' and '.join(missing)}; expected {', '.join(COLUMNS)}")
    cells = [[text_of_cell(row[name]) for name in COLUMNS] for row in rows]
    pairs = [PairPicture(path.parent / name, normalised(a), normalised(b)) for name, a, b in cells]
    known = f"classes that the bundle does not know; it knows {', '.join(classes)}"
    unknown = [
        f"row {number}: '{label}'"
        for number, pair in enumerate(pairs, start=1)
        for label in (pair.class_a, pair.class_b)
        if label not in classes
    ]
    refuse_rows(path, unknown, known)
    same = [
        f"row {number}: '{pair.class_a}'" for number, pair in enumerate(pairs, start=1) if pair.class_a == pair.class_b
    ]
    refuse_rows(path, same, "rows with the same class twice; name the two classes that the picture shows")
    refuse_missing(path, [pair.path for pair in pairs])
    return pairs


def evaluate_pairs(
    engine: Engine, pairs: Sequence[PairPicture], single: CascadeOutput, workers: int = 1
) -> dict[str, Any]:
    """Return the figures of pictures that show two classes, as plain data with exact 95% intervals.

    They are those of :func:`pair_figures` and ``false_marks``, the share of pictures of one class, ``single``, that is
    marked both. ``workers`` batches are processed in parallel.

    Raises
    ------
    CanonistiaError
        Pictures cannot be read; it names all of them.
    """
    shown = np.array([targets_of(engine, (pair.class_a, pair.class_b)) for pair in pairs])  # (M, 2)
    output = run_all(engine, [pair.path for pair in pairs], workers)
    return {**pair_figures(output, shown), **share_with_interval("false_marks", single.both, exact_interval)}


def pair_figures(output: CascadeOutput, shown: np.ndarray) -> dict[str, Any]:
    """Return the figures of pictures that show two classes (M, 2), as plain data with exact 95% intervals.

    ``both_named`` is the share whose two named classes are those shown, in either order; ``both_marked`` the share that
    is marked both as well.
    """
    named = (np.sort(top_two(output.probabilities), axis=1) == np.sort(shown, axis=1)).all(axis=1)
    return {
        "pictures": len(shown),
        **share_with_interval("both_named", named, exact_interval),
        **share_with_interval("both_marked", named & output.both, exact_interval),
    }
