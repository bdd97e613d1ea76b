"""A real ``canonistia serve`` on loopback, for the tests that need one."""

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(model: Path, python: Path | None = None, folder: Path | None = None) -> Iterator[str]:
    """Give the address of a server for a bundle; it is stopped in the end, and must exit with 0 and no complaint."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(python or sys.executable), "-m", "canonistia", "serve", "--model", str(model), "--port", str(port)]
    address = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log, cwd=folder)
        try:
            _wait_for(address, process)
            yield address
        finally:
            process.terminate()
            assert process.wait(timeout=30) == 0
            log.seek(0)
            said = log.read().decode().splitlines()
            assert [line for line in said if not line.startswith("serving ")] == []


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not answer; exit status {process.poll()}")
