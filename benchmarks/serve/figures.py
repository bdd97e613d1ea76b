"""What the benchmarks of the service share: the time that no service can save, and how figures are printed."""

import time
from collections.abc import Sequence
from statistics import median

from cascade.images.decoding import decode
from cascade.inference.engine import Engine, stack


def bare_latency(engine: Engine, pictures: Sequence[bytes]) -> list[float]:
    """Return, for each picture, the seconds of decoding it and one bare run of the main model on it."""
    model = engine.bundle.manifest.main
    session = engine.sessions.session(model.file)
    seconds = []
    for data in pictures:
        pixels = stack([decode(data)], model.preprocess)
        started = time.perf_counter()
        decode(data)
        session.run(["logits"], {"pixels": pixels})
        seconds.append(time.perf_counter() - started)
    return seconds


def show(name: str, values: Sequence[float], unit: str) -> None:
    """Print a median with the lowest and the highest value."""
    print(f"  {name:<44}{median(values):9.2f} {unit}  [{min(values):.2f}, {max(values):.2f}]", flush=True)
