"""Parquet: pictures whose bytes are in a table. Needs pyarrow, from the batch extra."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from cascade.errors import CanonistiaError
from cascade.images.folders import PictureFilter
from cascade.inputs.item import Item, Opener, failed_item

if TYPE_CHECKING:
    import pyarrow

_BYTES_COLUMNS = ("image", "bytes", "content", "jpg", "png")
_NAME_COLUMNS = ("path", "name", "file_name", "key", "__key__", "id")
_BLOCK = 64  # pictures read at once


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
            column = _bytes_column(file.schema_arrow, place)
            name = next((one for one in _NAME_COLUMNS if one in file.schema_arrow.names), None)
            number = 0
            for batch in file.iter_batches(_BLOCK, columns=[column, *([name] if name else [])]):
                for row in batch.to_pylist():
                    inside, picture = _entry(row[column], row[name] if name else None, number)
                    number += 1
                    if chosen.is_excluded(inside):
                        chosen.pass_over(inside, "excluded")
                    else:
                        yield _table_item(f"{place}::{inside}", picture)
    except (pa.ArrowException, OSError) as error:
        yield failed_item(place, f"is not a complete Parquet file: {str(error).splitlines()[0]}")


def _bytes_column(schema: "pyarrow.Schema", place: str) -> str:
    import pyarrow as pa

    for name in _BYTES_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                kind = kind.field("bytes").type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
    raise CanonistiaError(
        f"{place} has the columns {', '.join(schema.names)}; expected the bytes of pictures in a binary column called "
        f"{', '.join(_BYTES_COLUMNS)}"
    )


def _entry(value: Any, name: Any, number: int) -> tuple[str, bytes | None]:
    content, inner = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    return str(name if name is not None else inner or number), content


def _table_item(full: str, content: bytes | None) -> Item:
    if content is None:
        return failed_item(full, "has no bytes of a picture")
    return Item(full, len(content), "", partial(bytes, content), here=True)
