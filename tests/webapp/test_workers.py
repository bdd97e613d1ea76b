"""Several workers of one service: what they share, what one's death costs, how they stop, on a real server."""

import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cascade.errors import CanonistiaError
from tests.conftest import Run, draw
from tests.serving import Running, free_port, running
from tests.waiting import wait_until
from tests.webapp.test_server import load, workers
from tests.webapps import encoded
from webapp.serving.held import Held
from webapp.serving.limits import check_workers, machine_memory, share_of_cores

PICTURE = encoded(draw("sky", 61))
GB = 2**30


@contextmanager
def two_workers(bundle: Path, *options: object) -> Iterator[Running]:
    """Yield a server whose two workers have both loaded their models."""
    with running("--model", bundle, "--workers", 2, *options) as server:
        wait_until(lambda: len(workers(server)) == 2)
        for number in (0, 1):
            with only(server, number), urllib.request.urlopen(f"{server.address}v2/health/ready", timeout=60) as answer:
                assert answer.status == 200
        yield server


@contextmanager
def only(server: Running, number: int) -> Iterator[int]:
    """Let one worker alone answer: the others are stopped meanwhile. Yield its process id."""
    chosen, others = workers(server)[number], [pid for pid in workers(server) if pid != workers(server)[number]]
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield chosen
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def send(address: str, body: bytes, kind: str = "image/png", key: str | None = None) -> tuple[int, str]:
    headers = {"Content-Type": kind, "Connection": "close"} | ({"X-API-Key": key} if key else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metrics(server: Running) -> Counter[tuple[str, str]]:
    """Return the sums of /metrics by name and, where there is one, route."""
    with urllib.request.urlopen(f"{server.address}metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: Counter[tuple[str, str]] = Counter()
    for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
        found[sample.name, sample.labels.get("route", "")] += sample.value
    return found


def test_a_killed_worker_of_two_costs_only_its_requests_in_progress(tiny_bundle: Path) -> None:
    with two_workers(tiny_bundle) as server:
        with load(server, clients=6) as asked:
            wait_until(lambda: len(asked.answers) > 20)
            killed, kept = workers(server)
            os.kill(killed, signal.SIGKILL)
            before = len(asked.answers)
            wait_until(lambda: len(asked.answers) > before + 20)  # the other one answers meanwhile
            wait_until(lambda: len(workers(server)) == 2 and killed not in workers(server))
            assert kept in workers(server)
        assert {status for status, _ in asked.answers} == {200}
        assert len(asked.failures) <= 6  # one per client, at most
        found = metrics(server)
        # What the dead worker answered is still counted; what it was doing is not.
        assert found["canonistia_requests_total", "/api/v1/classify"] >= len(asked.answers)
        assert found["canonistia_queue_pictures", ""] == 0


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_every_worker_answers_what_was_asked_before_the_service_stops(tiny_bundle: Path, stop: signal.Signals) -> None:
    with two_workers(tiny_bundle) as server:
        folders = set(Path("/dev/shm").glob("canonistia-metrics-*"))
        pids = workers(server)
        with load(server) as asked:
            wait_until(lambda: len(asked.answers) > 20)
            server.process.send_signal(stop)
            assert server.process.wait(timeout=60) == 0
        assert server.said() == []
    assert {status for status, _ in asked.answers} == {200}
    assert {type(error) for error in asked.failures} <= {ConnectionRefusedError}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert len(folders - set(Path("/dev/shm").glob("canonistia-metrics-*"))) == 1


def test_a_correction_is_found_whichever_worker_answers_and_after_its_worker_died(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    head = b'--e\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n\r\n'
    with two_workers(tiny_bundle, "--collect", tmp_path / "collected") as server:
        with only(server, 0) as first:
            _, page = send(server.address, head + PICTURE + b"\r\n--e--\r\n", "multipart/form-data; boundary=e")
        (token,) = re.findall(r'name="token" value="([^"]+)"', page)
        form = urlencode({"token": token, "label": "rows"}).encode()
        with only(server, 1):
            status, _ = send(f"{server.address}corrections", form, "application/x-www-form-urlencoded")
        assert status == 200
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in workers(server))
        status, _ = send(f"{server.address}corrections", form, "application/x-www-form-urlencoded")
        assert status == 200
    assert len(list((tmp_path / "collected").rglob("*.png"))) == 1


def test_a_rate_and_the_metrics_are_one_over_the_workers(tiny_bundle: Path) -> None:
    with two_workers(tiny_bundle, "--rate", "3/hour") as server:
        seen = []
        for number in (0, 1, 0, 1):
            with only(server, number):
                seen.append(send(f"{server.address}api/v1/classify", PICTURE)[0])
        assert seen == [200, 200, 200, 429]
        for number in (0, 1):
            with only(server, number):
                found = metrics(server)
            assert found["canonistia_request_seconds_count", "/api/v1/classify"] == 4
            assert found["canonistia_batch_pictures_count", ""] == 3
            assert found["canonistia_build_info", ""] == 1
        resident = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in workers(server)]
        assert found["process_resident_memory_bytes", ""] > 0.9 * sum(resident)
        assert time.time() - found["process_start_time_seconds", ""] < 600


def test_keys_are_read_again_and_wrong_ones_counted_by_all_workers(tiny_bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("old\n")
    keys.chmod(0o600)
    with two_workers(tiny_bundle, "--api-key-file", keys, "--rate", "2/hour") as server:
        models = f"{server.address}api/v1/models"

        def status_of(key: str, number: int) -> int:
            with only(server, number):
                try:
                    with urllib.request.urlopen(urllib.request.Request(models, headers={"X-API-Key": key})) as answer:
                        return answer.status
                except urllib.error.HTTPError as error:
                    return error.code

        keys.write_text("new\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: sum("was reloaded" in line for line in server.said()) == 2)
        assert [status_of("new", number) for number in (0, 1)] == [200, 200]
        assert [status_of("old", number) for number in (0, 1)] == [401, 401]  # one at each: both are counted
        assert [status_of("new", number) for number in (0, 1)] == [429, 429]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--workers", 0), "0 is not in the range x>=1"),
        (("--workers", "many"), "'many' is not a valid integer"),
        (("--workers", 2, "--debug"), "--debug runs one process; leave out --workers, or --debug"),
        (("--workers", 100_000), "100000 workers take about"),
        (("--workers", 2, "--memory", 1), "MB at least in 2 workers, and --memory allows 1"),
    ],
)
def test_a_number_of_workers_that_cannot_be_is_refused_in_one_sentence(
    run: Run, tiny_bundle: Path, options: tuple[object, ...], message: str
) -> None:
    result = run("serve", "--port", free_port(), "--model", tiny_bundle, *options)
    assert result.exit_code != 0
    assert message in result.output.replace("\n", " ")


def test_as_many_workers_as_fit_are_named() -> None:
    manifest: Any = SimpleNamespace(files=[SimpleNamespace(size=GB // 20)])  # half a gigabyte when it is loaded
    check_workers(manifest, 1, GB // 4)
    check_workers(manifest, 3, 2 * GB)
    with pytest.raises(CanonistiaError, match=r"5 workers take about 3059 MB, .* has 2048 MB; use at most --workers 3"):
        check_workers(manifest, 5, 2 * GB)


def test_the_memory_of_a_container_counts_not_that_of_the_machine(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/pod/container"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/pod/container\n")
    assert machine_memory(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text("536870912\n")
    assert machine_memory(tmp_path) == 512 * 2**20


@pytest.mark.parametrize(("workers", "cores", "share"), [(1, 8, 8), (2, 8, 4), (3, 8, 2), (16, 8, 1)])
def test_workers_share_the_cores(workers: int, cores: int, share: int) -> None:
    assert share_of_cores(workers, cores) == share


def test_what_is_held_is_lost_after_its_time_and_the_oldest_first_when_it_is_too_much() -> None:
    held = Held(most_bytes=10, most_seconds=0.2)
    first, second = held.put(b"123456"), held.put(b"7890")
    assert (held.get(first), held.get(second)) == (b"123456", b"7890")
    third = held.put(b"1")
    assert (held.get(first), held.get(second), held.get(third)) == (None, b"7890", b"1")
    assert held.get("no such token") is None
    wait_until(lambda: held.get(third) is None, 5)
