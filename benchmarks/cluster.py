"""Batch classification on Ray workers, compared with the local engine.

    python -m benchmarks.cluster PICTURES [--model scene15] [--rounds 3] [--count 5000] [--rows 100000]

Each round classifies the same pictures with the local engine and with 1, 2 and 4 Ray workers, in turn. Ray is
configured with as many cores as there are workers, so four workers on two cores get half a core each. Two speeds are
printed: the time from the first item to the last row, and the same without the start, which is the time of a job with
one picture per worker. Each segment of a job pays the start once. Efficiency is the speed per core without the start,
relative to one worker.

The last figure is the driver's own limit: pictures are listed, sent to workers that answer at once without opening
them, and kept in a journal, half of --rows while the other half is listed. No job is faster than this, with any number
of workers.
"""

import argparse
import pickle
import platform
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import onnxruntime
import pyarrow as pa
import ray

import cascade.batch.cluster
from benchmarks.machine import processor_name
from cascade.batch.pipeline import answers
from cascade.bundle.lookup import find_bundle
from cascade.bundle.reading import read_bundle
from cascade.images.folders import pictures_below
from cascade.inference.engine import Engine
from cascade.inputs.item import Item, items_of
from cascade.outputs.journal import Terms, opened_journal
from cascade.outputs.rows import Answered, Row
from cascade.threads import BATCH_SIZE, processors

WORKERS = (1, 2, 4)


def speed(answered: Callable[[Iterable[Item]], Iterable[Answered]], paths: list[Path]) -> float:
    """Return pictures per second, from the first item to the last row."""
    started = time.perf_counter()
    rows = [one.row for one in answered(items_of(paths))]
    seconds = time.perf_counter() - started
    assert [row.path for row in rows] == [str(path) for path in paths]
    assert not any(row.error for row in rows)
    return len(rows) / seconds


class Idle:
    """Stands in for a worker: gives every picture the same answer."""

    def __init__(self, *_: object) -> None: ...

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return rows without opening any picture."""
        found = []
        for portion in block["portion"]:
            items, _ = pickle.loads(portion.as_py())
            rows = [Row(item.name, "coast", 1 / 3, "forest", 1 / 7, "main", False) for item in items]
            found.append(pickle.dumps([(item.stamp, row) for item, row in zip(items, rows, strict=True)]))
        return pa.table({"rows": found})


def driver_limit(model: str, count: int) -> float:
    """Return how many rows per second the driver sends out and keeps."""
    bundle = read_bundle(find_bundle(model))
    with TemporaryDirectory() as folder:
        for number in range(count):
            Path(folder, f"{number:07d}.jpg").touch()
        cascade.batch.cluster.Worker, cascade.batch.cluster.SEGMENT = Idle, count // 2 // processors()
        with (
            cascade.batch.cluster.opened_cluster(bundle, "local", processors(), BATCH_SIZE, False) as cluster,
            opened_journal(Path(folder, "rows.csv"), Terms(bundle.sha256, False), resume=False) as journal,
            closing(cluster.answers(items_of([Path(folder)]), journal)) as answered,
        ):
            journal.add(next(answered))
            started = time.perf_counter()
            for one in islice(answered, count // 2 - 1):  # one segment, while the other is listed
                journal.add(one)
            return (count // 2 - 1) / (time.perf_counter() - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model", default="scene15")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=5000, help="pictures per round")
    parser.add_argument(
        "--rows", type=int, default=100_000, help="rows for measuring the driver's limit (0: not measured)"
    )
    options = parser.parse_args()
    cores = processors()
    paths = list(islice(cycle(pictures_below(options.pictures)), options.count))
    bundle = read_bundle(find_bundle(options.model))
    engine = Engine(bundle, threads=1)
    engine.open_all()
    speeds: dict[str, list[float]] = {}
    core_seconds: list[float] = []
    starts: dict[str, list[float]] = {}

    def local(items: Iterable[Item]) -> Generator[Answered, None, None]:
        return answers(engine, items, cores)

    speed(local, paths[:200])  # warms up
    for _ in range(options.rounds):
        before = time.process_time()
        speeds.setdefault(f"local engine, {cores} threads", []).append(speed(local, paths))
        core_seconds.append((time.process_time() - before) / len(paths))
        for workers in WORKERS:
            name = f"Ray, {workers} worker" + ("s" if workers > 1 else "")
            with cascade.batch.cluster.opened_cluster(bundle, "local", workers, BATCH_SIZE, False) as cluster:
                speed(cluster.answers, paths[:workers])  # warms up
                starts.setdefault(name, []).append(workers / speed(cluster.answers, paths[:workers]))
                speeds.setdefault(name, []).append(speed(cluster.answers, paths))
    print(
        f"ray {ray.__version__}, onnxruntime {onnxruntime.__version__}, Python {platform.python_version()}, "
        f"{processor_name()}, {cores} cores; {len(paths)} pictures, {options.rounds} rounds"
    )
    print(f"  {'':<26}{'pictures/s':>10}{'':18}{'start, s':>10}{'without it':>12}{'efficiency':>12}")
    one = 0.0
    for name, values in speeds.items():
        start = median(starts.get(name, [0]))
        rate = len(paths) / (len(paths) / median(values) - start)
        one = rate if name == "Ray, 1 worker" else one
        share = f"{rate / one / min(cores, int(name.split()[1])):.2f}" if one else ""
        spread = f"[{min(values):.1f}, {max(values):.1f}]"
        print(f"  {name:<26}{median(values):10.1f}  {spread:<16}{start:10.1f}{rate:12.1f}{share:>12}")
    print(f"  local engine's core time  {1000 * median(core_seconds):10.2f} ms per picture")
    if options.rows:
        print(f"  the driver's limit        {driver_limit(options.model, options.rows):10.0f} rows/s")


if __name__ == "__main__":
    main()
