"""Reads an offline W&B run file: records of the LevelDB log format, each a protocol buffer."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

from tests.waiting import wait_until

_BLOCK = 32768
_FILE_HEADER = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(path: Path) -> list[Any]:
    """Return the records of a finished run's file in order.

    W&B's own process writes the file, and may still be at it when the run has been closed in this one.
    """
    return wait_until(lambda: _to_the_end(path), what=f"the end of {path.name}")


def _to_the_end(path: Path) -> list[Any]:
    # Nothing, as long as the record that closes a run is not there.
    data = path.read_bytes()
    found = list(_records(data)) if data.startswith(b":W&B") else []
    return found if any(record.HasField("exit") for record in found) else []


def _records(data: bytes) -> Iterator[Any]:
    position, parts = _FILE_HEADER, b""
    while position + 7 <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        if position + 7 + length > len(data):
            return
        kind = data[position + 6]
        parts = (
            data[position + 7 : position + 7 + length]
            if kind in (_FULL, _FIRST)
            else (parts + data[position + 7 : position + 7 + length])
        )
        position += 7 + length
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record


def config(path: Path) -> dict[str, Any]:
    """Return the run's configuration."""
    values: dict[str, Any] = {}
    for record in records(path):
        update = record.run.config.update if record.HasField("run") else record.config.update
        values |= {item.key: json.loads(item.value_json) for item in update}
    return values


def history(path: Path) -> list[dict[str, Any]]:
    """Return what was logged, one mapping a call."""
    return [_values(record.history.item) for record in records(path) if record.HasField("history")]


def summary(path: Path) -> dict[str, Any]:
    """Return the last summary values."""
    values: dict[str, Any] = {}
    for record in records(path):
        if record.HasField("summary"):
            values |= {
                item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
            }
    return values


def artifacts(path: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return the artifacts that the run used and that it made: the files of each by its name.

    The tables that a run logs are artifacts of their own, and are left out.
    """
    used: dict[str, set[str]] = {}
    made: dict[str, set[str]] = {}
    for record in records(path):
        if record.HasField("request") and record.request.HasField("log_artifact"):
            artifact = record.request.log_artifact.artifact
        elif record.HasField("artifact"):
            artifact = record.artifact
        else:
            continue
        if artifact.type == "run_table":
            continue
        files = {entry.path for entry in artifact.manifest.contents}
        (used if artifact.use_after_commit else made)[artifact.name] = files
    return used, made


def table_pictures(path: Path, name: str) -> list[Path]:
    """Return the picture files of a logged table, which is an artifact with them inside."""
    (table,) = [
        record.artifact for record in records(path)
        if record.HasField("artifact") and record.artifact.name.endswith(f"-{name}")
    ]  # fmt: skip
    return [Path(entry.local_path) for entry in table.manifest.contents if entry.path.startswith("media/images")]


def run(path: Path) -> Any:
    """Return the run's own record: name, group, job type."""
    return next(record.run for record in records(path) if record.HasField("run"))


def _values(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
