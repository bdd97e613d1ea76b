"""The cluster: the pipeline run by Ray's workers, on one or many machines. Needs the cluster extra."""

import logging
import math
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import ray
import ray.data
from ray._private import auto_init_hook
from ray.data.exceptions import ExecutionTimeoutError

from cascade.batch.cluster_connection import connect, last_line
from cascade.batch.cluster_worker import KnownRows, Worker, packed, unpacked
from cascade.bundle.manifest import MANIFEST
from cascade.bundle.reading import Bundle
from cascade.errors import CanonistiaError, PictureError
from cascade.inputs.item import Item, read_file
from cascade.inputs.remote import is_address
from cascade.outputs.rows import Answered, Row

if TYPE_CHECKING:
    from cascade.outputs.journal import Journal

# One Ray Data job processes one segment. Each of its workers loads an engine, and is then busy for minutes.
SEGMENT = 10_000  # items per worker
SEGMENT_BYTES = 500_000_000  # of pictures that are sent with their items
# One task processes one portion: seconds of work, so that neither starting a task nor losing one costs much.
PORTION = 256
PORTION_BYTES = 32_000_000
_TASKS = 4  # per worker at least, so that fast and slow workers finish at about the same time


@dataclass(frozen=True, slots=True)
class _Entry:
    """An item in progress: its row if it is known, else the item that is sent to a worker."""

    item: Item
    row: Row | None = None
    sent: Item | None = None
    rows: dict[str, Row] = field(default_factory=dict)  # by the stamps that the item may have
    held: int = 0  # bytes that are sent with it


@dataclass(frozen=True)
class Cluster:
    """Workers of a Ray cluster, one core each, and a bundle in its object store."""

    workers: int
    files: "ray.ObjectRef[dict[str, bytes]]"
    batch_size: int
    by_hash: bool

    def answers(self, items: Iterable[Item], journal: "Journal | None" = None) -> Generator[Answered, None, None]:
        """Yield every item with its row, in order, as :func:`cascade.batch.pipeline.answers` does.

        The workers read files and addresses under the same names; bytes that only this process can read are sent with
        their item. A lost worker is replaced as soon as there is room, and its work is repeated.

        Raises
        ------
        CanonistiaError
            Workers cannot be started, or they raise an error.
        """
        entries = (self._entry(item, journal) for item in items)
        waiting = list(self._segment(entries))
        while waiting:
            following = self._segment(entries)
            listed: list[_Entry] = []
            for answered in self._answered(waiting):
                yield answered
                listed += islice(following, 1)  # the next segment is looked up while the workers are busy
            waiting = [*listed, *following]

    def _entry(self, item: Item, journal: "Journal | None") -> _Entry:
        if journal and not self.by_hash and (row := journal.known(item)):
            return _Entry(item, row)
        rows = journal.known_by_stamp(item) if journal and self.by_hash else {}
        if not item.here and (is_address(item.name) or os.path.isabs(item.name)):
            return _Entry(item, None, item, rows)
        if not item.here:
            return _Entry(item, None, replace(item, read=partial(read_file, Path(item.name).absolute())), rows)
        try:
            content = item.read()
        except PictureError as error:
            return _Entry(replace(item, stamp="") if self.by_hash else item, Row(item.name, error=str(error)))
        return _Entry(item, None, replace(item, read=partial(bytes, content)), rows, len(content))

    def _segment(self, entries: Iterable[_Entry]) -> Iterator[_Entry]:
        held = 0
        for entry in islice(entries, self.workers * SEGMENT):
            yield entry
            held += entry.held
            if held >= SEGMENT_BYTES:
                return

    def _answered(self, entries: Sequence[_Entry]) -> Iterator[Answered]:
        found = self._found([entry for entry in entries if not entry.row])
        for entry in entries:
            if entry.row:
                yield Answered(entry.item, entry.row)
            else:
                stamp, row = next(found)
                assert row.path == entry.item.name
                yield Answered(replace(entry.item, stamp=stamp), row)

    def _found(self, entries: Sequence[_Entry]) -> Iterator[tuple[str, Row]]:
        """Yield the stamp and the row of each entry, in order."""
        if not entries:
            return
        portions = [{"portion": one} for one in _portions(entries, math.ceil(len(entries) / self.workers / _TASKS))]
        sent = ray.data.from_items(portions, override_num_blocks=len(portions))
        size = min(self.workers, len(portions))
        portions.clear()  # the object store has them now
        done = sent.map_batches(
            Worker,
            batch_format="pyarrow",
            fn_constructor_args=(self.files, self.batch_size, self.by_hash),
            compute=ray.data.ActorPoolStrategy(size=size),
            num_cpus=1,
        )  # Ray Data restarts lost workers and repeats their tasks, without a limit
        try:
            for block in done.iter_rows():
                yield from unpacked(block["rows"])
        except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
            raise CanonistiaError(
                f"Ray's workers failed ({last_line(error)}); check that every node has this canonistia with the "
                "cluster extra, and run again with --resume"
            ) from error


@contextmanager
def opened_cluster(
    bundle: Bundle, address: str | None, workers: int | None, batch_size: int, by_hash: bool
) -> Iterator[Cluster]:
    """Yield the workers of the cluster at an address, or of a local cluster that exists until the block ends.

    Without an address, ``$RAY_ADDRESS`` is used if it is set. By default there is one worker per core.

    Raises
    ------
    CanonistiaError
        No cluster answers at the address, or none can be started.
    """
    try:
        auto_init_hook.enable_auto_connect = False  # a stopped job's threads would begin a cluster of their own
        # Ray puts the current folder first on the path of its workers, and a file among the user's pictures may be
        # named as a package is. Only the folder that canonistia was imported from has a place there.
        with chdir(Path(__file__).parents[2]):
            connect(address, workers)
        _quieten()
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        cores = int(ray.cluster_resources().get("CPU", 0))
        yield Cluster(workers or max(cores, 1), ray.put(_files(bundle)), batch_size, by_hash)
    finally:
        ray.shutdown()


def _portions(entries: Sequence[_Entry], most: int) -> Iterator[bytes]:
    items: list[Item] = []
    rows: KnownRows = {}
    held = 0
    for entry in entries:
        assert entry.sent is not None
        items.append(entry.sent)
        rows |= {(entry.item.name, stamp): row for stamp, row in entry.rows.items()}
        held += entry.held
        if len(items) >= min(most, PORTION) or held >= PORTION_BYTES:
            yield packed(items, rows)
            items, rows, held = [], {}, 0
    if items:
        yield packed(items, rows)


def _files(bundle: Bundle) -> dict[str, bytes]:
    manifest = msgspec.json.encode(bundle.manifest)
    return {MANIFEST: manifest} | {file.path: bundle.content(file) for file in bundle.manifest.files}


def _quieten() -> None:
    """Keep Ray's messages off the terminal, which shows our counter; Ray's log files have them all."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Ray would print messages about lost workers to standard output, among the rows; there is no public switch.
    ray._private.worker._worker_logs_enabled = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)
