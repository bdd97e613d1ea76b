"""Cells: the texts of an answer as a spreadsheet shows them."""

from dataclasses import replace

from cascade.outputs.rows import Row

# A cell that begins so is a formula for a spreadsheet, which could call a program or send the other cells away; the
# wide signs are read like the others where Chinese or Japanese is written.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def as_cells(row: Row) -> Row:
    """Return a row whose texts a spreadsheet reads as texts: an apostrophe is before each that would be a formula."""
    return replace(
        row,
        path=_as_text(row.path),
        label_1=row.label_1 and _as_text(row.label_1),
        label_2=row.label_2 and _as_text(row.label_2),
        error=row.error and _as_text(row.error),
    )


def _as_text(text: str) -> str:
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA_STARTS) else text
