"""Two workers against one, on the same machine, the same network and the same clients over loopback.

    .venv-dev/bin/python -m benchmarks.serve.workers photos/validation

Throughput at 32 clients, the proportional set size of all processes after it, and the latency that the service adds at
one client. The services are measured in turns, each started anew. Medians are printed, with the lowest and the highest
value; two workers have passed where the throughput is at least that of one, the memory at most 1.8 times that of one,
and the intervals of the added latency overlap.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.machine import processor_name
from benchmarks.serve.figures import bare_latency, show
from benchmarks.serve.load import Measured, post, run_load
from benchmarks.serve.processes import ROOT, proportional_memory, running
from cascade.bundle.lookup import find_bundle
from cascade.images.folders import pictures_below
from cascade.inference.engine import Engine
from cascade.threads import processors

_CLIENTS = 32
_WORKERS = (1, 2)
_SOME = 30  # pictures per turn of the latency


def check(load: Measured) -> Measured:
    """Return what was measured, or stop: figures with failures say nothing."""
    if load.failures or set(load.statuses) != {200}:
        raise SystemExit(f"statuses {dict(load.statuses)}, failures {load.failures[:3]}; expected 200 alone")
    return load


def measure(
    workers: int, engine: Engine, pictures: Sequence[bytes], options: argparse.Namespace
) -> tuple[float, float, float]:
    """Return pictures per second, MB of all processes, and the added milliseconds of one service."""
    requests = [post("/api/v1/classify", data) for data in pictures]
    command = ("canonistia", "serve", "--model", options.model, "--workers", str(workers), "--port")
    with running(*command) as (pid, port):
        check(run_load(port, requests, _CLIENTS, options.warm_up))  # until every worker has loaded, and its models too
        rate = check(run_load(port, requests, _CLIENTS, options.seconds)).rate
        memory = proportional_memory(pid)
        bare = median(bare_latency(engine, pictures[:_SOME]))
        asked = median(check(run_load(port, requests[:_SOME], 1, 600, limit=_SOME)).latencies)
    return rate, memory, 1000 * (asked - bare)


def main() -> None:
    """Run both in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="?", default=ROOT / "data" / "samples")
    parser.add_argument("--model", default=str(ROOT / "models" / "scene15"))
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--warm-up", type=float, default=15, help="seconds of load before anything is measured")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files = pictures_below(options.pictures)
    pictures = [path.read_bytes() for path in files]
    engine = Engine.load(find_bundle(options.model))
    engine.self_test(1)
    print(f"{processor_name()}, {processors()} cores; {len(files)} pictures of {options.pictures.name}")
    found: dict[int, list[tuple[float, float, float]]] = {workers: [] for workers in _WORKERS}
    for turn in range(options.rounds):
        for workers in _WORKERS if turn % 2 == 0 else reversed(_WORKERS):
            found[workers].append(measure(workers, engine, pictures, options))
    for column, (name, unit) in enumerate(
        ((f"throughput, {_CLIENTS} clients", "pictures/s"), ("proportional set size", "MB"), ("added, 1 client", "ms"))
    ):
        print(f"\n{name}, {options.rounds} turns")
        for workers, rows in found.items():
            show(f"{workers} worker{'s' if workers > 1 else ''}", [row[column] for row in rows], unit)
        one, two = ([row[column] for row in found[workers]] for workers in _WORKERS)
        if unit != "ms":
            show("two / one, turn by turn", [after / before for before, after in zip(one, two, strict=True)], "")


if __name__ == "__main__":
    main()
