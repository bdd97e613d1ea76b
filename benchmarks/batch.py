"""Batch classification against the core time that its parts need.

    python -m benchmarks.batch PICTURES [--model scene15] [--rounds 5] [--count 640]

Every round measures, in turn and on the same pictures, what a core needs for each part of the work by itself (decoding,
preprocessing, one bare inference of the main model, one pass of the second stage), and the whole pipeline. From the
parts follows the core-time limit: cores / (decode + preprocess + main + routed share x second stage). Seconds are
processor seconds, which neighbours on the machine disturb less than they do the clock; pictures a second by the clock
are printed beside them, against the same parts run by plain threads with nothing in between. Memory is the peak.
"""

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime

from cascade.bundle import find_bundle
from cascade.engine import Engine
from cascade.folders import pictures_below
from cascade.inputs import items_of
from cascade.picture import decode
from cascade.pipeline import BATCH_SIZE, answers
from cascade.preprocess import preprocess
from cascade.threads import processors


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Return what a clock says that some work took."""
    started = clock()
    work()
    return clock() - started


def parts(engine: Engine, paths: Sequence[Path]) -> dict[str, float]:
    """Return core seconds a picture of each part of the work, made by one thread."""
    manifest = engine.bundle.manifest
    contents = [path.read_bytes() for path in paths]
    pictures, batches, routed = [], [], 0
    spent = {"decode": seconds(lambda: pictures.extend(decode(content) for content in contents))}
    spec = manifest.main.preprocess
    pixels = []
    spent["preprocess"] = seconds(lambda: pixels.extend(preprocess(picture, spec) for picture in pictures))
    batches = [np.stack(pixels[start : start + BATCH_SIZE]) for start in range(0, len(pixels), BATCH_SIZE)]
    main = engine._session(manifest.main.file)
    spent["main"] = seconds(lambda: [main.run(["probabilities", "distance"], {"pixels": batch}) for batch in batches])
    some = pictures[: 4 * BATCH_SIZE]
    asked = np.ones((BATCH_SIZE, len(engine.classes)), dtype=bool)
    second = seconds(
        lambda: [
            engine.ask_submodels(some[start : start + BATCH_SIZE], asked[: len(some[start : start + BATCH_SIZE])])
            for start in range(0, len(some), BATCH_SIZE)
        ]
    )
    routed = sum(one.row.stage == "submodels" for one in answers(engine, items_of(paths), 2))
    return {name: value / len(paths) for name, value in spent.items()} | {
        "second stage": second / len(some),
        "routed": routed / len(paths),
    }


def plain_threads(engine: Engine, paths: Sequence[Path], threads: int) -> None:
    """Decode, preprocess and run the main model on shares of the pictures, a thread a share, nothing in between."""
    manifest = engine.bundle.manifest
    main = engine._session(manifest.main.file)

    def share(number: int) -> None:
        own = paths[number::threads]
        for start in range(0, len(own), BATCH_SIZE):
            pixels = [preprocess(decode(path), manifest.main.preprocess) for path in own[start : start + BATCH_SIZE]]
            main.run(["probabilities", "distance"], {"pixels": np.stack(pixels)})

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(share, range(threads)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model", default="scene15")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=640, help="pictures a round")
    options = parser.parse_args()
    cores = processors()
    engine = Engine.load(find_bundle(options.model), threads=1)
    engine.open_all()
    found = pictures_below(options.pictures)
    step = max(1, len(found) // options.count)
    paths = list(islice(cycle(found[::step]), options.count))
    table: dict[str, list[float]] = {}
    for turn in range(options.rounds + 1):
        figures = parts(engine, paths)
        limit = (
            figures["decode"] + figures["preprocess"] + figures["main"] + figures["routed"] * figures["second stage"]
        )
        started = time.perf_counter()
        spent = seconds(lambda: sum(1 for _ in answers(engine, items_of(paths), cores))) / len(paths)
        wall = time.perf_counter() - started
        plain = seconds(lambda: plain_threads(engine, paths, cores), time.perf_counter)
        figures |= {
            "limit, core ms": limit,
            "pipeline, core ms": spent,
            "core-time share of the limit": limit / spent,
            "pipeline, pictures/s by the clock": len(paths) / wall,
            "plain threads, main model alone, pictures/s": len(paths) / plain,
        }
        if turn:  # the first round warms up
            for name, value in figures.items():
                table.setdefault(name, []).append(value)
    print(f"onnxruntime {onnxruntime.__version__}, {cores} cores, {options.count} pictures, {options.rounds} rounds")
    for name, values in table.items():
        scale = 1 if "share" in name or "/s" in name or name == "routed" else 1000
        low, middle, high = (scale * one(values) for one in (min, median, max))
        print(f"  {name:<46}{middle:9.3f}{' ms' if scale > 1 else '   '}  [{low:.3f}, {high:.3f}]")
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
