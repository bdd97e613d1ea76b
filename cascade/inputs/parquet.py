"""Parquet: pictures whose bytes lie in a table, and rows written as one. Needs pyarrow, of the batch extra."""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade.errors import CanonistiaError
from cascade.inputs.containers import Opener
from cascade.inputs.item import Item, failed_item
from cascade.outputs.rows import Row

if TYPE_CHECKING:
    import pyarrow

_BYTES_COLUMNS = ("image", "bytes", "content", "jpg", "png")
_NAME_COLUMNS = ("path", "name", "file_name", "key", "__key__", "id")
_BLOCK = 64  # pictures read at once
_GROUP = 10_000  # rows of a row group


def parquet_items(place: str, opened: Opener) -> Iterator[Item]:
    """Yield the pictures of a Parquet file, named ``file.parquet::`` and their path, name, key, or number.

    Their bytes are in a binary column called image, bytes, content, jpg or png, or in the field ``bytes`` of one.

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
                    yield _table_item(place, row[column], row[name] if name else None, number)
                    number += 1
    except (pa.ArrowException, OSError) as error:
        yield failed_item(place, f"is no whole Parquet file: {str(error).splitlines()[0]}")


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


def _table_item(place: str, value: Any, name: Any, number: int) -> Item:
    content, inner = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    full = f"{place}::{name if name is not None else inner or number}"
    if content is None:
        return failed_item(full, "holds no bytes of a picture")
    return Item(full, len(content), "", partial(bytes, content), here=True)


def write_parquet(path: Path, rows: Iterable[Row], partition: str | None) -> None:
    """Write rows as one Parquet file, or as a folder of them with one folder inside for each value of a column.

    It appears under its name when all rows are written, and not at all otherwise.

    Raises
    ------
    CanonistiaError
        It cannot be written.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    schema = pa.schema([(field.name, _arrow_type(field.name)) for field in fields(Row)])
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.partial")
    rows = iter(rows)
    groups = iter(lambda: list(islice(rows, _GROUP)), [])
    batches = (pa.RecordBatch.from_pylist([_as_text(row) for row in group], schema) for group in groups)
    try:
        if partition:
            flavour = ds.partitioning(pa.schema([schema.field(partition)]), flavor="hive")
            reader = pa.RecordBatchReader.from_batches(schema, batches)
            ds.write_dataset(reader, partial_path, format="parquet", partitioning=flavour)
        else:
            with pq.ParquetWriter(partial_path, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        _remove(path)  # a folder cannot be replaced in one step
        os.replace(partial_path, path)
    except OSError as error:
        raise CanonistiaError(f"{path} cannot be written ({error.strerror or error}); choose another --out") from error
    finally:
        _remove(partial_path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _as_text(row: Row) -> dict[str, Any]:
    # A file name need not be text, a cell has to be.
    return asdict(row) | {"path": os.fsencode(row.path).decode("utf-8", "backslashreplace")}


def _arrow_type(column: str) -> Any:
    import pyarrow as pa

    return {"probability_1": pa.float64(), "probability_2": pa.float64(), "unsure": pa.bool_()}.get(column, pa.string())
