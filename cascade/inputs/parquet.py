"""Parquet: pictures whose bytes are in a table. Needs pyarrow, from the batch extra."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from cascade.errors import CanonistiaError
from cascade.images.folders import PictureFilter
from cascade.inputs.item import Item, Opener, failed_item
from cascade.tables.parquet import BLOCK, BYTES_COLUMNS, bytes_column, content_and_name

_NAME_COLUMNS = ("path", "name", "file_name", "key", "__key__", "id")


def parquet_items(place: str, opened: Opener, chosen: PictureFilter) -> Iterator[Item]:
    """Yield the pictures of a Parquet file, named ``file.parquet::`` plus their path, name, key, or number.

    Rows whose name is excluded are passed over.

    Their bytes are in a binary column called image, bytes, content, jpg or png, or in such a column's field ``bytes``.

    Raises
    ------
    CanonistiaError
        The table has no such column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened() as content, pq.ParquetFile(content) as file:
            column = bytes_column(file.schema_arrow)
            if column is None:
                raise CanonistiaError(
                    f"{place} has the columns {', '.join(file.schema_arrow.names)}; expected the bytes of pictures in "
                    f"a binary column called {', '.join(BYTES_COLUMNS)}"
                )
            name = next((one for one in _NAME_COLUMNS if one in file.schema_arrow.names), None)
            number = 0
            for batch in file.iter_batches(BLOCK, columns=[column, *([name] if name else [])]):
                for row in batch.to_pylist():
                    inside, picture = _entry(row[column], row[name] if name else None, number)
                    number += 1
                    if chosen.is_excluded(inside):
                        chosen.pass_over(inside, "excluded")
                    else:
                        yield _table_item(f"{place}::{inside}", picture)
    except (pa.ArrowException, OSError) as error:
        yield failed_item(place, f"is not a complete Parquet file: {str(error).splitlines()[0]}")


def _entry(value: Any, name: Any, number: int) -> tuple[str, bytes | None]:
    content, inner = content_and_name(value)
    return str(name if name is not None else inner or number), content


def _table_item(full: str, content: bytes | None) -> Item:
    if content is None:
        return failed_item(full, "has no bytes of a picture")
    return Item(full, len(content), "", partial(bytes, content), here=True)
