"""Photos of 12 megapixels: the pipeline compared with a plain loop that decodes at full size with Pillow.

    python -m benchmarks.large_photos [--model scene15] [--photos 2000] [--rounds 3]

The photos are generated: one picture of edges, texture and noise, linked under many names. The loop decodes,
preprocesses and runs the main model alone, with all cores for each inference. The pipeline also runs the second stage
on routed pictures.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from cascade.batch.pipeline import answers
from cascade.bundle.lookup import find_bundle
from cascade.images.preprocess import preprocess
from cascade.inference.engine import Engine
from cascade.inputs.item import items_of
from cascade.threads import processors

BATCH = 16


def draw_photo(seed: int = 0) -> Image.Image:
    """Return a photo of 4000 x 3000 pixels: edges, texture, and noise of a seed."""
    y, x = np.mgrid[0:3000, 0:4000]
    value = 128 + 50 * np.sin(x * y / 9000) + 40 * ((x // 97 + y // 61) % 2) - 20
    noise = np.random.default_rng(seed).normal(0, 12, (3000, 4000, 3))
    return Image.fromarray(np.clip(value[..., None] * (0.9, 1.0, 0.8) + noise, 0, 255).astype(np.uint8))


def make_photos(folder: Path, count: int) -> list[Path]:
    """Write one photo and link it under many names."""
    first = folder / "0000.jpg"
    draw_photo().save(first, quality=88)
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    for path in paths[1:]:
        os.link(first, path)
    return paths


def plain_loop(engine: Engine, paths: Sequence[Path]) -> None:
    """Decode each photo at full size with Pillow, one after another, and run the main model on batches."""
    model = engine.bundle.manifest.main
    session = engine.sessions.session(model.file)
    for start in range(0, len(paths), BATCH):
        pixels = [
            preprocess(Image.open(path).convert("RGB"), model.preprocess) for path in paths[start : start + BATCH]
        ]
        session.run(["logits", "distance"], {"pixels": np.stack(pixels)})


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the wall-clock seconds and the processor seconds that some work took."""
    started, spent = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - spent


def main() -> None:
    """Measure in interleaved rounds, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scene15")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = find_bundle(options.model)
    cores = processors()
    loop, pipeline = Engine.load(folder, threads=cores), Engine.load(folder, threads=1)
    with tempfile.TemporaryDirectory() as photos:
        paths = make_photos(Path(photos), options.photos)
        ways = {
            "plain Pillow loop": lambda some: plain_loop(loop, some),
            "pipeline": lambda some: sum(1 for _ in answers(pipeline, items_of(some), cores)),
        }
        for way in ways.values():
            way(paths[:4])
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                figures[name].append(timed(partial(way, paths)))
    print(f"{cores} cores, {options.photos} photos of 12 megapixels, {options.rounds} rounds")
    base = [median(values) for values in zip(*figures["plain Pillow loop"], strict=True)]
    for name, values in figures.items():
        clock, spent = (median(one) / options.photos * 1000 for one in zip(*values, strict=True))
        low, high = (one(clocked for clocked, _ in values) / options.photos * 1000 for one in (min, max))
        times = base[0] / options.photos * 1000 / clock
        print(f"  {name:<20}{clock:8.1f} ms wall clock [{low:.1f}, {high:.1f}], {spent:.1f} core ms, {times:.2f} times")


if __name__ == "__main__":
    main()
