"""Parquet: rows written as a table. Needs pyarrow, from the batch extra."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from cascade.files import written_whole
from cascade.outputs.rows import Row, cells, unwritten
from cascade.threads import batches

_GROUP = 10_000  # rows per row group


def write_parquet(path: Path, rows: Iterable[Row], partition: str | None) -> None:
    """Write rows as one Parquet file, or as a folder of them with one subfolder per value of a column.

    It appears under its name only when all rows are written.

    Raises
    ------
    CanonistiaError
        It cannot be written.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    schema = pa.schema([(field.name, _arrow_type(field.name)) for field in fields(Row)])
    tables = (pa.RecordBatch.from_pylist([cells(row) for row in group], schema) for group in batches(rows, _GROUP))
    try:
        with written_whole(path) as partial:
            if partition:
                flavour = ds.partitioning(pa.schema([schema.field(partition)]), flavor="hive")
                reader = pa.RecordBatchReader.from_batches(schema, tables)
                ds.write_dataset(reader, partial, format="parquet", partitioning=flavour)
            else:
                with pq.ParquetWriter(partial, schema) as writer:
                    for table in tables:
                        writer.write_batch(table)
    except OSError as error:
        raise unwritten(path, error) from error


def _arrow_type(column: str) -> Any:
    import pyarrow as pa

    numbers = dict.fromkeys(("probability_1", "probability_2"), pa.float64())
    return (numbers | dict.fromkeys(("unsure", "both", "accepted"), pa.bool_())).get(column, pa.string())
