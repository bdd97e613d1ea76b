"""A bundle in floating point compared with its 8-bit form.

    python -m benchmarks.precision MODEL PICTURES [--rounds 7] [--count 640]

MODEL is a bundle with an 8-bit form (see 'canonistia quantize --help'). Measured in turns: a bare pass of the main
network and of the second stage's trunk, on one thread, with the pipeline's batch size; and the whole batch pipeline.
The medians of the ratios are printed.
"""

import argparse
import platform
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import onnxruntime

from cascade.batch.pipeline import answers
from cascade.bundle.lookup import find_bundle
from cascade.bundle.precision import INT8, processor_kind
from cascade.images.folders import pictures_below
from cascade.inference.engine import Engine, stack
from cascade.inputs.item import items_of
from cascade.threads import BATCH_SIZE, processors


def rate(count: int, work: Callable[[], object]) -> float:
    """Return ``count`` divided by the seconds that some work takes."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def main() -> None:
    """Measure in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=640)
    options = parser.parse_args()
    folder = find_bundle(options.model)
    engines = {"float": Engine.load(folder, threads=1), "int8": Engine.load(folder / INT8, threads=1)}
    paths = list(islice(cycle(pictures_below(options.pictures)), options.count))
    some = [engines["float"].see(path) for path in paths[: 8 * BATCH_SIZE]]
    size = {name: sum(entry.size for entry in engine.bundle.manifest.files) for name, engine in engines.items()}
    print(
        f"{processor_kind()}, {processors()} cores, Python {platform.python_version()}, "
        f"onnxruntime {onnxruntime.__version__}; {options.count} pictures, {options.rounds} turns; "
        f"float {size['float'] / 1e6:.1f} MB, int8 {size['int8'] / 1e6:.1f} MB ({size['int8'] / size['float']:.3f})"
    )
    measured: dict[str, dict[str, list[float]]] = {}
    for turn in range(options.rounds + 1):
        for name, engine in engines.items():
            rates = {}
            for number, (entry, spec) in enumerate(engine.bundle.manifest.networks[:2]):
                pixels = stack(some, spec)
                session = engine.sessions.session(entry)
                output = ["features"] if number else ["logits"]
                batches = [pixels[start : start + BATCH_SIZE] for start in range(0, len(pixels), BATCH_SIZE)]
                feeds = [{"pixels": batch} for batch in batches]
                rates[f"bare {entry.path}, one thread"] = rate(
                    len(pixels), lambda s=session, o=output, f=feeds: [s.run(o, feed) for feed in f]
                )
            rates["the whole pipeline, all cores"] = rate(
                len(paths), lambda e=engine: [*answers(e, items_of(paths), processors())]
            )
            for what, value in rates.items():
                if turn:  # the first turn warms up
                    measured.setdefault(what, {}).setdefault(name, []).append(value)
    for what, forms in measured.items():
        ratios = [eight / full for eight, full in zip(forms["int8"], forms["float"], strict=True)]
        print(
            f"{what:<34} float {median(forms['float']):7.1f}/s   int8 {median(forms['int8']):7.1f}/s   "
            f"ratio {median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        )


if __name__ == "__main__":
    main()
