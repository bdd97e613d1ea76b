"""Batch classification compared with the core time of its parts.

    python -m benchmarks.batch PICTURES [--model scene15] [--rounds 5] [--count 20000] [--sample 640]

Each round measures two things. First, on a sample of the pictures: the core time of each part on its own (decoding,
preprocessing, one bare inference of the main model, one pass of the second stage). Second, on all pictures, copied
under new names: the whole pipeline. The parts give a limit in pictures per second: cores / (decode + preprocess + main
+ routed share x second stage), in processor seconds, which other load on the machine disturbs less than wall-clock
time. The pipeline is compared with this limit in processor seconds and in wall-clock time. For comparison, plain
threads run all parts except the second stage. Memory is the peak of the process.
"""

import argparse
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.copies import copies
from benchmarks.machine import processor_name
from cascade.batch.pipeline import answers
from cascade.bundle.lookup import find_bundle
from cascade.images.decoding import decode
from cascade.images.folders import pictures_below
from cascade.images.preprocess import preprocess
from cascade.inference.engine import Engine
from cascade.inputs.item import items_of
from cascade.threads import BATCH_SIZE, processors


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Return the seconds that some work took, by the given clock."""
    started = clock()
    work()
    return clock() - started


def parts(engine: Engine, paths: Sequence[Path]) -> dict[str, float]:
    """Return the core seconds per picture of each part of the work, on one thread."""
    manifest = engine.bundle.manifest
    contents = [path.read_bytes() for path in paths]
    pictures: list[Image.Image] = []
    spent = {"decode": seconds(lambda: pictures.extend(decode(content) for content in contents))}
    spec = manifest.main.preprocess
    pixels: list[np.ndarray] = []
    spent["preprocess"] = seconds(lambda: pixels.extend(preprocess(picture, spec) for picture in pictures))
    batches = [np.stack(pixels[start : start + BATCH_SIZE]) for start in range(0, len(pixels), BATCH_SIZE)]
    main = engine.sessions.session(manifest.main.file)
    spent["main"] = seconds(lambda: [main.run(["logits", "distance"], {"pixels": batch}) for batch in batches])
    some = pictures[: 4 * BATCH_SIZE]
    asked = np.ones((BATCH_SIZE, len(engine.classes)), dtype=bool)
    second = seconds(
        lambda: [
            engine.ask_submodels(some[start : start + BATCH_SIZE], asked[: len(some[start : start + BATCH_SIZE])])
            for start in range(0, len(some), BATCH_SIZE)
        ]
    )
    return {name: value / len(paths) for name, value in spent.items()} | {"second stage": second / len(some)}


def plain_threads(engine: Engine, paths: Sequence[Path], threads: int) -> None:
    """Decode, preprocess and run the main model on shares of the pictures, one thread per share, without a pipeline."""
    manifest = engine.bundle.manifest
    main = engine.sessions.session(manifest.main.file)

    def share(number: int) -> None:
        own = paths[number::threads]
        for start in range(0, len(own), BATCH_SIZE):
            pixels = [preprocess(decode(path), manifest.main.preprocess) for path in own[start : start + BATCH_SIZE]]
            main.run(["logits", "distance"], {"pixels": np.stack(pixels)})

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(share, range(threads)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model", default="scene15")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=20_000, help="pictures that the pipeline classifies per round")
    parser.add_argument("--sample", type=int, default=640, help="pictures on which the parts are measured per round")
    options = parser.parse_args()
    cores = processors()
    engine = Engine.load(find_bundle(options.model), threads=1)
    engine.open_all()
    found = pictures_below(options.pictures)
    sample = found[:: -(-len(found) // options.sample)]
    table: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = copies(found, options.count, Path(folder))
        for turn in range(options.rounds + 1):
            figures = parts(engine, sample)
            whole = paths if turn else sample  # the first round warms up
            started, before = time.perf_counter(), time.process_time()
            stages = Counter(one.row.stage for one in answers(engine, items_of(whole), cores))
            wall, spent = time.perf_counter() - started, time.process_time() - before
            plain = seconds(lambda: plain_threads(engine, sample, cores), time.perf_counter)
            routed = stages["submodels"] / len(whole)
            limit = figures["decode"] + figures["preprocess"] + figures["main"] + routed * figures["second stage"]
            figures |= {
                "routed": routed,
                "limit, core ms": limit,
                "limit, pictures/s": cores / limit,
                "pipeline, core ms": spent / len(whole),
                "pipeline, pictures/s by wall clock": len(whole) / wall,
                "share of the limit, core time": limit / (spent / len(whole)),
                "share of the limit, by wall clock": len(whole) / wall * limit / cores,
                "plain threads, main model alone, pictures/s": len(sample) / plain,
            }
            if turn:
                for name, value in figures.items():
                    table.setdefault(name, []).append(value)
    print(f"{processor_name()}, {cores} cores, onnxruntime {onnxruntime.__version__}")
    print(f"{options.count} pictures, parts on {len(sample)}, {options.rounds} rounds")
    for name, values in table.items():
        scale = 1 if "share" in name or "/s" in name or name == "routed" else 1000  # seconds are shown as ms
        low, middle, high = (scale * one(values) for one in (min, median, max))
        print(f"  {name:<46}{middle:9.3f}{' ms' if scale > 1 else '   '}  [{low:.3f}, {high:.3f}]")
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
