"""The worker of a cluster: an engine, and the pipeline around it. Needs ray, from the cluster extra."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import ray

from cascade.batch.pipeline import answers
from cascade.inference.engine import Engine
from cascade.inputs.item import Item
from cascade.inputs.remote import READERS, is_address
from cascade.outputs.rows import Row

KnownRows = dict[tuple[str, str], Row]  # by name and stamp


def packed(items: Sequence[Item], known: KnownRows) -> bytes:
    """Return a portion of work in the form that is sent to a worker: items, and the rows that they may have."""
    return pickle.dumps((items, known))


def unpacked(rows: bytes) -> list[tuple[str, Row]]:
    """Return a worker's answer to a portion: the stamp and the row of each item."""
    return pickle.loads(rows)


class Worker:
    """Answers portions with its own engine, whose bundle comes from the object store."""

    def __init__(self, files: "ray.ObjectRef[dict[str, bytes]]", batch_size: int, by_hash: bool) -> None:
        with TemporaryDirectory(prefix="canonistia-") as folder:
            for name, content in ray.get(files).items():
                path = Path(folder, name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            self._engine = Engine.load(Path(folder), threads=1)
            self._engine.open_all()
        self._batch_size, self._by_hash = batch_size, by_hash

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return a block of answered portions for a block of portions."""
        return pa.table({"rows": [pickle.dumps(self._rows(one.as_py())) for one in block["portion"]]})

    def _rows(self, portion: bytes) -> list[tuple[str, Row]]:
        items, known = pickle.loads(portion)
        readers = READERS if any(is_address(item.name) for item in items) else 1
        answered = answers(
            self._engine,
            items,
            workers=0,
            readers=readers,
            batch_size=self._batch_size,
            known=lambda item: known.get((item.name, item.stamp)),
            by_hash=self._by_hash,
        )
        return [(one.item.stamp, one.row) for one in answered]
