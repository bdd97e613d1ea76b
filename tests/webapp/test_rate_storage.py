"""Rates in a Redis, which replicas of a service share; a Redis is run here, or a server that speaks like one."""

import logging
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from limits.storage import MemoryStorage

from tests.conftest import Run
from tests.serving import Running, free_port, running
from tests.waiting import started, wait_until
from webapp.serving import rate_storage
from webapp.serving.rate_storage import SharedRates, is_storage_address

pytest.importorskip("redis", reason="redis is not installed (extra redis)")

_IMITATION = """
import sys
from fakeredis import TcpFakeServer
TcpFakeServer.allow_reuse_address = True
TcpFakeServer(("127.0.0.1", int(sys.argv[1]))).serve_forever()
"""


@contextmanager
def redis(port: int) -> Iterator[tuple[str, subprocess.Popen[Any]]]:
    """Yield the address of a Redis, and its process; without a real one it is that of the package fakeredis."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server:
        command = [server, "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    else:
        pytest.importorskip("fakeredis", reason="neither redis-server nor fakeredis is installed")
        pytest.importorskip("lupa", reason="neither redis-server nor lupa, which fakeredis needs, is installed")
        command = [sys.executable, "-c", _IMITATION, str(port)]
    address = f"redis://127.0.0.1:{port}/0"
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: process.poll() is not None or rate_storage._connected(address).check())
        yield address, process


def ask(server: Running) -> int:
    asked = urllib.request.Request(f"{server.address}v2/repository/index", data=b"")
    try:
        with urllib.request.urlopen(asked) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return int(refused.code)


def test_replicas_count_together_and_go_on_alone_while_the_storage_is_gone(tiny_bundle: Path) -> None:
    with redis(free_port()) as (address, process):
        options = ("--model", tiny_bundle, "--rate", "4/hour", "--rate-storage", address)
        with running(*options, "--workers", 2) as first, running(*options) as second:
            assert [ask(first), ask(second), ask(first), ask(second)] == [200] * 4
            assert [ask(first), ask(second)] == [429, 429]
            process.kill()
            process.wait()
            assert [ask(second) for _ in range(5)] == [200, 200, 200, 200, 429]
            (said,) = second.said()
            assert f"{address} cannot be reached; each machine counts for itself until it can" in said


def test_a_storage_that_comes_back_counts_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rate_storage, "_RETRY_SECONDS", 0)
    monkeypatch.setattr(logging.getLogger("canonistia"), "propagate", True)
    port = free_port()
    with redis(port) as (address, _):
        rates = SharedRates(address, MemoryStorage())
        assert [rates.incr("one", 60), rates.incr("one", 60), rates.get("one")] == [1, 2, 2]
    assert [rates.incr("one", 60), rates.incr("one", 60), rates.get("one")] == [1, 2, 2]  # from the start
    with redis(port):
        assert rates.incr("one", 60) == 1  # the new Redis is empty
        assert rates.get_expiry("one") > time.time()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "can be reached again" in caplog.text


def test_a_storage_that_is_not_there_and_an_address_that_is_none_are_one_sentence(run: Run) -> None:
    address = f"redis://user:secret@127.0.0.1:{free_port()}/0"
    result = run("serve", "--port", free_port(), "--rate", "4/hour", "--rate-storage", address)
    assert result.exit_code == 1
    assert re.search(r"no Redis answers at redis://127.0.0.1:\d+/0; start it, or correct --rate-storage", result.output)
    assert "secret" not in result.output
    for wrong in ("memory://", "redis://", "redis://host:port", "http://host:6379", "host"):
        assert not is_storage_address(wrong)
    result = run("serve", "--rate", "4/hour", "--rate-storage", "host")
    assert result.exit_code == 2
    assert "no address of a storage" in result.output
