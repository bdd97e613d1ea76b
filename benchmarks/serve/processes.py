"""Servers as processes of their own, and the memory that they take."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def running(module: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """Run a module that serves on the port given as its last argument; give its process id and the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", module, *arguments, str(port)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, stderr=quiet, stdout=quiet, start_new_session=True)
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/live").read()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield process.pid, port
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # LitServe leaves its children behind
        process.wait(60)


def children_of(pid: int) -> list[int]:
    """Return the ids of the processes that a process started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def proportional_memory(pid: int) -> float:
    """Return the proportional set size of a server and its workers in MB: what several map counts in parts."""
    files = [Path(f"/proc/{one}/smaps_rollup") for one in (pid, *children_of(pid))]
    lines = [line.split() for file in files for line in file.read_text().splitlines()]
    return sum(int(words[1]) / 1024 for words in lines if words[0] == "Pss:")


def memory_of_children(pid: int, measure: Literal["VmRSS", "VmHWM"]) -> float:
    """Return the resident memory of a server's workers in MB: now (VmRSS), or at its peak so far (VmHWM)."""
    lines = [
        line.split() for child in children_of(pid) for line in Path(f"/proc/{child}/status").read_text().splitlines()
    ]
    return sum(int(words[1]) / 1024 for words in lines if words[:1] == [f"{measure}:"])
