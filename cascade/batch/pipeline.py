"""The pipeline: pictures are listed, read, decoded, inferred and written concurrently, in bounded memory."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from cascade.errors import PictureError
from cascade.images.view import View
from cascade.inference.engine import Engine
from cascade.inference.prediction import Prediction
from cascade.inputs.item import Item
from cascade.outputs.rows import Answered, Row
from cascade.threads import BATCH_SIZE, in_order

# A batch ends early at this many bytes of files, so that large photographs do not fill the memory.
BATCH_BYTES = 8_000_000
# No more bytes of files than this wait to be classified, but for one file that is larger.
HELD_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class _Entry:
    """An item in progress: its bytes after they were read, its row if it is known."""

    item: Item
    content: bytes | PictureError = b""
    row: Row | None = None


Known = Callable[[Item], Row | None]


def answers(
    engine: Engine,
    items: Iterable[Item],
    workers: int,
    readers: int = 1,
    batch_size: int = BATCH_SIZE,
    known: Known = lambda item: None,
    by_hash: bool = False,
) -> Generator[Answered, None, None]:
    """Yield every item with its row, in order; a picture that cannot be read gives a row with its error.

    ``readers`` threads read batches ahead; ``workers`` threads turn the bytes of one batch each into rows. A worker
    keeps one core busy if the engine uses one thread per inference. ``known`` is called in the caller's thread and
    returns an item's row if it is known; the item is then neither read nor classified. With ``by_hash`` items are read
    first, and the sha256 of the bytes becomes the item's stamp.
    """
    entries = (_Entry(item, row=None if by_hash else known(item)) for item in items)
    fetched = in_order(partial(_fetch, by_hash), _batches(entries, batch_size), readers, 2, _bytes_of, HELD_BYTES)
    if by_hash:
        fetched = ([replace(entry, row=known(entry.item)) for entry in batch] for batch in fetched)
    for batch in in_order(partial(_answer, engine), fetched, workers, 2, _bytes_of, HELD_BYTES):
        yield from batch


def _batches(entries: Iterable[_Entry], batch_size: int) -> Iterator[list[_Entry]]:
    batch: list[_Entry] = []
    held = 0
    for entry in entries:
        batch.append(entry)
        held += 0 if entry.row else entry.item.size
        if len(batch) == batch_size or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _bytes_of(batch: Sequence[_Entry]) -> int:
    return sum(entry.item.size for entry in batch if not entry.row)


def _fetch(by_hash: bool, batch: Sequence[_Entry]) -> list[_Entry]:
    return [entry if entry.row else _read(entry.item, by_hash) for entry in batch]


def _read(item: Item, by_hash: bool) -> _Entry:
    try:
        content = item.read()
    except PictureError as error:
        return _Entry(replace(item, stamp="") if by_hash else item, error)
    return _Entry(replace(item, stamp=hashlib.sha256(content).hexdigest()) if by_hash else item, content)


def _answer(engine: Engine, batch: Sequence[_Entry]) -> list[Answered]:
    decoded = [entry.row or _view(engine, entry.content) for entry in batch]
    views = [view for view in decoded if isinstance(view, View)]
    predictions = iter(engine.predictions(engine.run(views)) if views else ())
    return [Answered(entry.item, _row(entry.item, one, predictions)) for entry, one in zip(batch, decoded, strict=True)]


def _row(item: Item, decoded: Row | View | PictureError, predictions: Iterator[Prediction]) -> Row:
    match decoded:
        case Row():
            return decoded
        case PictureError():
            return Row(item.name, error=str(decoded))
    return Row(item.name, **vars(next(predictions)))


def _view(engine: Engine, content: bytes | PictureError) -> View | PictureError:
    return content if isinstance(content, PictureError) else engine.see(content)
