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
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Running:
    """A server that runs; ``address`` ends in a slash."""

    address: str
    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def said(self) -> list[str]:
        """Return the lines that it wrote to standard error so far, but for its greeting."""
        self.log.seek(0)
        lines = self.log.read().decode().splitlines()
        return [line for line in lines if not line.startswith("serving ")]


@contextmanager
def running(
    *options: object, python: Path | None = None, folder: Path | None = None, start_new_session: bool = False
) -> Iterator[Running]:
    """Give a server started with options; it is killed in the end if it still runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(python or sys.executable), "-m", "canonistia", "serve", "--port", str(port), *map(str, options)]
    address = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log, cwd=folder, start_new_session=start_new_session)
        try:
            _wait_for(f"{address}v2/health/live", process)
            yield Running(address, port, process, log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            finally:
                process.kill()
                process.wait()


@contextmanager
def served(model: Path, *options: object, python: Path | None = None, folder: Path | None = None) -> Iterator[str]:
    """Give the address of a server for a bundle; it is stopped in the end, and must exit with 0 and no complaint."""
    with running("--model", model, *options, python=python, folder=folder) as server:
        yield server.address
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
        assert server.said() == []


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not answer; exit status {process.poll()}")
