"""A real ``canonistia serve`` on loopback, for the tests that need one."""

import os
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.waiting import wait_until


@dataclass(frozen=True)
class Running:
    """A running server; ``address`` ends in a slash."""

    address: str
    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    def said(self) -> list[str]:
        """Return the lines that it wrote to standard error so far, without its greeting."""
        self.log.seek(0)
        lines = self.log.read().decode().splitlines()
        return [line for line in lines if not line.startswith("serving ")]


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    *options: object,
    python: Path | None = None,
    folder: Path | None = None,
    start_new_session: bool = False,
    environment: dict[str, str] | None = None,
    port: int | None = None,
) -> Iterator[Running]:
    """Yield a server started with options; it is killed at the end if it still runs.

    Its port, a free one unless ``port`` is given, and ``environment`` are added to the environment of the tests.
    """
    port = port or free_port()
    env = os.environ | {"CANONISTIA_SERVE_PORT": str(port)} | (environment or {})
    command = [str(python or sys.executable), "-m", "canonistia", "serve", *map(str, options)]
    address = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log, cwd=folder, start_new_session=start_new_session, env=env)
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
    """Yield the address of a server for a bundle; it is stopped at the end, and must exit with 0 and log nothing."""
    with running("--model", model, *options, python=python, folder=folder) as server:
        yield server.address
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
        assert server.said() == []


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        assert process.poll() is None, f"the server did not start; exit status {process.poll()}"
        try:
            with urllib.request.urlopen(address):
                return True
        except urllib.error.URLError:
            return False

    wait_until(answers)
