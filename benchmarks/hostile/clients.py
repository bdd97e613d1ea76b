"""What heavy pictures cost the other clients of a service: its memory, and the latency of a small picture.

    python -m benchmarks.hostile --keep worst
    python -m benchmarks.hostile.clients worst/*

A real ``canonistia serve`` with default limits runs on loopback. Its peak memory is compared with its memory before,
when one client sends every file once, and when many clients send them without a pause. Then, in turns, one client sends
a small picture to the idle service, and while heavy clients send the files without a pause. Clients and service share
the machine's cores.
"""

import argparse
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.machine import processor_name
from benchmarks.serve.load import Measured, post, run_load
from benchmarks.serve.processes import ROOT, memory_of_children, running

ASK = "/api/v1/classify"


def under_load(port: int, small: bytes, heavy: Sequence[bytes], clients: int, seconds: float) -> Measured:
    """Return what a client with a small picture measures while others send heavy ones; print the others' statuses."""
    others: list[Measured] = []
    load = threading.Thread(target=lambda: others.append(run_load(port, heavy, clients, seconds + 2)))
    load.start()
    run_load(port, [small], 1, 1)  # until the heavy clients are under way
    measured = run_load(port, [small], 1, seconds)
    load.join()
    print(f"    heavy clients: {dict(others[0].statuses)}, failures {others[0].failures}", flush=True)
    return measured


def latencies(port: int, small: bytes, heavy: Sequence[bytes], options: argparse.Namespace) -> None:
    """Print the latency of a small picture on the idle service and beside heavy clients, in turns."""
    ratios, slowest = [], []
    for _ in range(options.rounds):
        idle = run_load(port, [small], 1, options.seconds)
        busy = under_load(port, small, heavy, options.clients, options.seconds)
        if not busy.latencies:
            raise SystemExit(f"the small picture had no answer: {dict(busy.statuses)}, {busy.failures}")
        ratios.append(median(busy.latencies) / median(idle.latencies))
        slowest.append(max(busy.latencies))
        print(
            f"  small picture: idle {1000 * median(idle.latencies):7.1f} ms, beside {options.clients} heavy clients "
            f"{1000 * median(busy.latencies):7.1f} ms (most {1000 * max(busy.latencies):.0f} ms, "
            f"{dict(busy.statuses)}, failures {busy.failures}), ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"ratio of medians {median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] over {len(ratios)} turns")
    print(f"slowest answer about the small picture {max(slowest):.2f} s", flush=True)


def main() -> None:
    """Measure memory, then latencies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--model", default=str(ROOT / "models" / "scene15"))
    parser.add_argument("--small", type=Path, default=next((ROOT / "data" / "samples").rglob("*.jpg")))
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    small = post(ASK, options.small.read_bytes())
    heavy = [post(ASK, path.read_bytes()) for path in options.files]
    print(f"{processor_name()}, {os.cpu_count()} cores; {len(heavy)} files, small picture {options.small.name}")
    with running("canonistia", "serve", "--model", options.model, "--port") as (pid, port):
        run_load(port, [small], 1, 2)
        idle = memory_of_children(pid, "VmRSS")
        run_load(port, heavy, 1, 3600, limit=len(heavy))
        one = memory_of_children(pid, "VmHWM")
        print(f"memory: {idle:.0f} MB idle; peak with one heavy client {one - idle:+.0f} MB", flush=True)
        latencies(port, small, heavy, options)
        peak = memory_of_children(pid, "VmHWM")
        print(f"peak memory with {options.clients} heavy clients {peak - idle:+.0f} MB above idle")


if __name__ == "__main__":
    main()
