"""The service under load, compared with ``classify`` on the same pictures, a plain Flask view, LitServe and Gradio.

    python -m benchmarks.serve [--pictures DIR] [--seconds 30] [--answers 20000]

Clients and servers share the machine's cores, so compare only figures of the same run. Servers are measured in turns,
and the turns are repeated. Medians are printed, with the lowest and the highest value. LitServe and Gradio are
measured where they are installed; each server gets the body that it reads.
"""

import argparse
import importlib.util
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import onnxruntime

from benchmarks.machine import processor_name
from benchmarks.serve.figures import bare_latency, show
from benchmarks.serve.load import post, post_form, post_json, run_load
from benchmarks.serve.processes import memory_of_children, running
from cascade.batch.pipeline import answers
from cascade.bundle.lookup import find_bundle
from cascade.images.folders import pictures_below
from cascade.inference.engine import Engine
from cascade.inputs.item import items_of
from cascade.threads import processors

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = "benchmarks.serve"
CLIENTS = (1, 8, 32, 128)


def classify_rate(engine: Engine, files: Sequence[Path]) -> float:
    """Return pictures per second of the command's pipeline, with models open and warm, one thread per inference."""
    started = time.perf_counter()
    answered = sum(one.row.error is None for one in answers(engine, items_of(files), processors()))
    return answered / (time.perf_counter() - started)


def load_latency_and_memory(
    command: Sequence[str], engine: Engine, pictures: Sequence[bytes], options: argparse.Namespace
) -> None:
    """Print this project's service: speed by number of clients, added latency of one client, memory over time."""
    requests = [post("/api/v1/classify", data) for data in pictures]
    print("\ncanonistia serve, by number of clients")
    with running(*command) as (pid, port):
        run_load(port, requests, 8, 3)
        for clients in CLIENTS:
            load = run_load(port, requests, clients, options.seconds)
            p50, p99 = median(load.latencies), quantiles(load.latencies, n=100)[98]
            print(
                f"  {clients:4} clients {load.rate:8.1f} pictures/s   p50 {1000 * p50:7.1f} ms   "
                f"p99 {1000 * p99:7.1f} ms   statuses {dict(load.statuses)}   failures {len(load.failures)}",
                flush=True,
            )
        print("\nadded latency, one client (ten turns, each over every tenth picture)")
        added, bare, asked = [], [], []
        for turn in range(10):
            # Files are sorted by class, and some classes are routed more than others: each turn takes some of each.
            some = slice(turn % len(pictures), None, 10)
            bare.append(1000 * median(bare_latency(engine, pictures[some])))
            asked.append(1000 * median(run_load(port, requests[some], 1, 60, limit=len(requests[some])).latencies))
            added.append(asked[-1] - bare[-1])
        show("decode + one bare session.run, p50", bare, "ms")
        show("request, p50", asked, "ms")
        show("added", added, "ms")
        print(f"\nmemory of the worker over {options.answers} answers at 32 clients")
        warm = memory_of_children(pid, "VmRSS")
        run_load(port, requests, 32, 3600, limit=options.answers)
        after = memory_of_children(pid, "VmRSS")
        print(f"  {warm:.0f} MB warm, {after:.0f} MB after: {100 * (after / warm - 1):+.1f}%", flush=True)


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, default=ROOT / "data" / "samples")
    parser.add_argument("--model", default=str(ROOT / "models" / "scene15"))
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3, help="number of turns per server at 32 clients")
    parser.add_argument("--answers", type=int, default=20_000, help="number of answers over which memory is measured")
    parser.add_argument("--only-throughput", action="store_true", help="only compare throughput with the other servers")
    options = parser.parse_args()
    files = pictures_below(options.pictures)
    pictures = [path.read_bytes() for path in files]
    requests = [post("/api/v1/classify", data) for data in pictures]
    engine = Engine.load(find_bundle(options.model))
    engine.self_test(8)
    versions = f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"
    print(f"{processor_name()}, {os.cpu_count()} cores, {versions}; {len(files)} pictures of {options.pictures.name}")

    ours = ("canonistia", "serve", "--model", options.model, "--port")
    if not options.only_throughput:
        load_latency_and_memory(ours, engine, pictures, options)
    single = Engine.load(find_bundle(options.model), threads=1)
    single.self_test(8)
    servers = {
        "canonistia serve": (ours, requests),
        "plain Flask view": ((f"{HERE}.plain_flask", options.model), requests),
    }
    if importlib.util.find_spec("litserve"):
        forms = [post_form("/api/v1/classify", data) for data in pictures]
        servers["LitServe"] = ((f"{HERE}.lit_serve", options.model), forms)
    if importlib.util.find_spec("gradio"):
        documents = [post_json("/gradio_api/run/classify", data) for data in pictures]
        servers["Gradio interface"] = ((f"{HERE}.gradio_interface", options.model), documents)
    rates: dict[str, list[float]] = {name: [] for name in ("canonistia classify", *servers)}
    for _ in range(options.rounds):
        rates["canonistia classify"].append(classify_rate(single, files))
        for name, (command, sent) in servers.items():
            with running(*command) as (_, port):
                run_load(port, sent, 8, 3)
                rates[name].append(run_load(port, sent, 32, options.seconds).rate)
    print(f"\nthroughput, 32 clients, {options.rounds} turns")
    for name, values in rates.items():
        show(name, values, "pictures/s")
    ratios = [
        ours / theirs for ours, theirs in zip(rates["canonistia serve"], rates["canonistia classify"], strict=True)
    ]
    show("canonistia serve / canonistia classify", ratios, "")


if __name__ == "__main__":
    main()
