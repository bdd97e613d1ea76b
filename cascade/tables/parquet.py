"""Parquet: tables of paths, or of the bytes of pictures. Needs pyarrow, from the batch extra."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from cascade.errors import CanonistiaError
from cascade.files import cache_folder, written_whole

if TYPE_CHECKING:
    import pyarrow

BYTES_COLUMNS = ("image", "bytes", "content", "jpg", "png")
BLOCK = 64  # pictures read at once
_ENDING = re.compile(r"\.\w{1,5}", re.ASCII)


def bytes_column(schema: "pyarrow.Schema") -> str | None:
    """Return the name of the column of pictures' bytes, plain or in a field ``bytes``; None where there is none."""
    import pyarrow as pa

    for name in BYTES_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                kind = kind.field("bytes").type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
    return None


def content_and_name(cell: Any) -> tuple[bytes | None, str | None]:
    """Return the bytes in a cell of such a column, and the name beside them in it; None for what is missing."""
    return (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet table; class numbers of Hugging Face's tables become the names of the classes.

    Bytes of pictures are no part of the rows: each is unpacked once into a file below ``$CANONISTIA_CACHE``, which
    stands in the row as its ``path``.

    Raises
    ------
    CanonistiaError
        It is no Parquet table, or there is no room for its pictures.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        column = bytes_column(schema)
        rows = pq.read_table(path, columns=[name for name in schema.names if name != column]).to_pylist()
        named = _class_names(schema)
        rows = [{name: _named(cell, named.get(name)) for name, cell in row.items()} for row in rows]
        if column is None:
            return rows
        return [{**row, "path": file} for row, file in zip(rows, _unpacked(path, column), strict=True)]
    except pa.ArrowInvalid as error:
        raise CanonistiaError(f"{path} is no Parquet file ({error}); write it again") from error


def _class_names(schema: "pyarrow.Schema") -> dict[str, list[str]]:
    """Return the names behind the numbers of each column, as Hugging Face's ``datasets`` notes them in a table."""
    noted = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(noted).get("info", {}).get("features", {}) if noted else {}
    return {name: one["names"] for name, one in features.items() if isinstance(one, dict) and "names" in one}


def _named(cell: Any, names: list[str] | None) -> Any:
    return names[cell] if names and isinstance(cell, int) and 0 <= cell < len(names) else cell


def _unpacked(path: Path, column: str) -> list[str]:
    """Return a file for each row: its picture, unpacked, or the path that it names where it has no bytes."""
    with path.open("rb") as file:
        folder = cache_folder() / f"pictures-{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(folder) as partial:
                partial.mkdir()
                for number, (content, name) in enumerate(_pictures(path, column)):
                    if content is None:
                        (partial / f"{number:08d}.path").write_text(name or "", encoding="utf-8")
                    else:
                        (partial / f"{number:08d}{_ending(name)}").write_bytes(content)
        except OSError as error:
            raise CanonistiaError(
                f"the pictures of {path} cannot be unpacked into {folder.parent} ({error.strerror or error}); make "
                "room, or set CANONISTIA_CACHE to a folder with room"
            ) from error
    files = sorted(folder.iterdir())
    return [file.read_text(encoding="utf-8") if file.suffix == ".path" else str(file) for file in files]


def _pictures(path: Path, column: str) -> Iterator[tuple[bytes | None, str | None]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BLOCK, columns=[column]):
            yield from map(content_and_name, batch.column(0).to_pylist())


def _ending(name: str | None) -> str:
    """Return the ending of a picture's name if it is a plain one; without one its first bytes say what it is."""
    ending = PurePath(name or "").suffix.lower()
    return ending if _ENDING.fullmatch(ending) and ending != ".path" else ""
