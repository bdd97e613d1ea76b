"""The server under faults: killed workers, replaced bundles, slow and silent clients. A real server in each test."""

import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec import json as msgspec_json
from PIL import Image

from cascade.bundle.manifest import MANIFEST
from cascade.bundle.reading import read_bundle
from cascade.rules.routing import Confidence
from tests.conftest import CLASSES, draw
from tests.serving import Running, free_port, running
from tests.waiting import started, wait_until
from tests.webapps import encoded

PICTURES = [encoded(draw(label, seed)) for seed in (51, 52) for label in CLASSES]
ASK = "/api/v1/classify"


@dataclass
class Load:
    """Clients that send requests without a pause, each on a new connection."""

    port: int
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def client(self, number: int) -> None:
        while not self.stopping.is_set():
            try:
                self.answers.append(ask(self.port, PICTURES[number % len(PICTURES)]))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                time.sleep(0.02)


def ask(port: int, data: bytes, timeout: float = 30) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", ASK, data, {"Content-Type": "image/png", "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def load(server: Running, clients: int = 6) -> Iterator[Load]:
    made = Load(server.port)
    threads = [threading.Thread(target=made.client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made.stopping.set()
        for thread in threads:
            thread.join()


def workers(server: Running) -> list[int]:
    text = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """Return a bundle that a test may change."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "served"))


def replace_bundle(bundle: Path, change: Callable[[dict], object]) -> None:
    """Replace a bundle by a changed one, as ``export --overwrite`` does: written beside it, then renamed."""
    fresh = bundle.with_name("fresh")
    shutil.copytree(bundle, fresh)
    manifest = json.loads((fresh / MANIFEST).read_text())
    change(manifest)
    (fresh / MANIFEST).write_text(json.dumps(manifest))
    bundle.rename(bundle.with_name("old"))
    fresh.rename(bundle)
    shutil.rmtree(bundle.with_name("old"))


def route_everything(manifest: dict) -> None:
    manifest["rules"]["routing"] = msgspec_json.decode(msgspec_json.encode(Confidence(threshold=1.01)))


def test_a_killed_worker_is_replaced_and_only_requests_in_progress_fail(bundle: Path) -> None:
    with running("--model", bundle) as server, load(server) as asked:
        wait_until(lambda: len(asked.answers) > 20)
        (worker,) = workers(server)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: workers(server) not in ([worker], []))
        before = len(asked.answers)
        wait_until(lambda: len(asked.answers) > before + 20)
    assert {status for status, _ in asked.answers} == {200}
    assert len(asked.failures) <= 6  # one per client


def test_sigterm_answers_what_was_asked_and_exits_with_0(bundle: Path) -> None:
    with running("--model", bundle) as server:
        with load(server) as asked:
            wait_until(lambda: len(asked.answers) > 20)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=30) == 0
        assert server.said() == []
    assert {status for status, _ in asked.answers} == {200}
    # After the server has stopped, connecting fails; a request that was accepted is never dropped.
    assert {type(error) for error in asked.failures} <= {ConnectionRefusedError}


def test_ctrl_c_answers_what_was_asked_and_exits_with_0(bundle: Path) -> None:
    with running("--model", bundle, start_new_session=True) as server:
        with load(server) as asked:
            wait_until(lambda: len(asked.answers) > 20)
            os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does: every process of the group
            assert server.process.wait(timeout=30) == 0
        assert server.said() == []
    assert {status for status, _ in asked.answers} == {200}
    assert {type(error) for error in asked.failures} <= {ConnectionRefusedError}


def test_sigterm_while_it_starts_ends_it_without_a_word(bundle: Path) -> None:
    with ExitStack() as stack:
        starting = []
        for _ in range(6):
            words = ("serve", "--model", str(bundle), "--port", str(free_port()))
            command = [sys.executable, "-m", "canonistia", *words]
            starting.append(stack.enter_context(started(command, stderr=subprocess.PIPE)))
        for process in starting:  # on most machines, some before and some after the worker is forked
            time.sleep(0.5)
            process.terminate()
        for process in starting:
            _, said = process.communicate(timeout=30)
            assert [line for line in said.splitlines() if not line.startswith(b"serving ")] == []
            assert process.returncode in (0, -signal.SIGTERM)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_it_serves_without_a_home_a_folder_for_temporary_files_a_current_folder_and_a_log(
    bundle: Path, tmp_path: Path
) -> None:
    lost, port = tmp_path / "lost", free_port()
    lost.mkdir()
    nowhere = os.environ | {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
    leave = 'cd "$1" && rmdir "$1" && shift && exec "$@" 2> /dev/full'
    words = (sys.executable, "-P", "-m", "canonistia", "serve", "--model", str(bundle), "--port", str(port))
    with started(["sh", "-c", leave, "sh", str(lost), *words], env=nowhere) as process:
        wait_until(lambda: process.poll() is not None or answers(port))
        assert ask(port, PICTURES[0])[0] == 200
        process.terminate()
        assert process.wait(timeout=30) == 0


def answers(port: int) -> bool:
    try:
        return ask(port, PICTURES[0])[0] == 200
    except OSError:
        return False


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_every_address_answers_under_its_name(bundle: Path) -> None:
    with running("--model", bundle, "--host", "::") as server:
        for host in ("127.0.0.1", "[::1]"):
            with urllib.request.urlopen(f"http://{host}:{server.port}/v2/health/ready") as answer:
                assert answer.status == 200


@pytest.mark.parametrize("how", ["signal", "noticed"])
def test_a_replaced_bundle_is_swapped_in_under_load_without_a_failure(bundle: Path, how: str) -> None:
    old = read_bundle(bundle).sha256
    with running("--model", bundle) as server, load(server) as asked:
        wait_until(lambda: len(asked.answers) > 20)
        replace_bundle(bundle, route_everything)
        if how == "signal":
            server.process.send_signal(signal.SIGHUP)
        new = read_bundle(bundle).sha256
        wait_until(lambda: new.encode() in asked.answers[-1][1])
        before = len(asked.answers)
        wait_until(lambda: len(asked.answers) > before + 20)
    assert not asked.failures
    assert {status for status, _ in asked.answers} == {200}
    answers = [json.loads(body) for _, body in asked.answers]
    assert {answer["sha256"] for answer in answers} == {old, new}
    stages = {answer["results"][0]["stage"] for answer in answers if answer["sha256"] == new}
    assert stages == {"submodels"}  # every answer of the new bundle follows the new rules


@pytest.mark.parametrize("fault", ["damaged", "nonsense", "missing"])
def test_a_bundle_that_fails_its_test_leaves_the_old_one_serving(bundle: Path, fault: str) -> None:
    with running("--model", bundle) as server:
        before = ask(server.port, PICTURES[0])
        if fault == "damaged":
            main = bundle / "main.onnx"
            content = bytearray(main.read_bytes())
            content[len(content) // 2] ^= 255
            main.write_bytes(content)
        elif fault == "nonsense":
            replace_bundle(bundle, lambda manifest: manifest.update(classes=["a", "b"]))
        else:
            shutil.rmtree(bundle)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("refused, the old one stays in use" in line for line in server.said()))
        assert ask(server.port, PICTURES[0]) == before


def raw(port: int, *parts: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    for part in parts:
        connection.sendall(part)
    return connection


def head(length: int, kind: str = "image/png") -> bytes:
    lines = (f"POST {ASK} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}", f"Content-Type: {kind}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_slow_uploads_and_silent_clients_are_let_go(bundle: Path) -> None:
    with running("--model", bundle, "--upload-time", 1, "--queue", 4) as server:
        slow = [raw(server.port, head(1000), b"x" * 10) for _ in range(3)]
        unfinished = raw(server.port, b"POST / HTTP/1.1\r\nHo")
        status, _ = ask(server.port, PICTURES[0])
        assert status == 200
        trickle = raw(server.port, head(100_000))
        received = b""
        trickle.settimeout(0.1)
        for _ in range(100):
            try:
                trickle.sendall(b"x")
                received = trickle.recv(1000)
            except TimeoutError:
                continue
            break
        assert received.startswith(b"HTTP/1.1 408")
        for connection in slow:
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        assert unfinished.recv(1000) == b""
        for connection in (*slow, unfinished, trickle):
            connection.close()
        assert ask(server.port, PICTURES[0])[0] == 200
        assert server.said() == []


def test_a_client_that_does_not_read_holds_nobody_up(bundle: Path) -> None:
    with running("--model", bundle, "--upload-time", 1) as server:
        request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        deaf = [raw(server.port, request * 200) for _ in range(5)]
        for _ in range(5):
            assert ask(server.port, PICTURES[0])[0] == 200
        for connection in deaf:
            connection.close()
        assert ask(server.port, PICTURES[0])[0] == 200


def test_a_client_that_leaves_frees_its_place(bundle: Path) -> None:
    slow = large_picture()
    with running("--model", bundle, "--queue", 3) as server:
        for _ in range(8):
            raw(server.port, head(len(PICTURES[0])), PICTURES[0]).close()
            raw(server.port, head(len(PICTURES[0])), PICTURES[0][:50]).close()
        wait_until(lambda: b"canonistia_queue_pictures 0.0" in metrics(server.port))
        before = clients_left(server.port)
        # Several large pictures in one request take long; the later ones are dropped once their client is gone.
        part = b'--e\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + slow + b"\r\n"
        body = 3 * part + b"--e--\r\n"
        leaving = raw(server.port, head(len(body), "multipart/form-data; boundary=e"), body)
        wait_until(lambda: b"canonistia_queue_pictures 3.0" in metrics(server.port))
        leaving.close()
        wait_until(lambda: clients_left(server.port) > before)
        wait_until(lambda: b"canonistia_queue_pictures 0.0" in metrics(server.port))
        assert ask(server.port, PICTURES[0])[0] == 200
        assert server.said() == []


def clients_left(port: int) -> float:
    found = re.search(rb'canonistia_errors_total\{kind="client_left"\} (\S+)', metrics(port))
    return float(found[1]) if found else 0


def metrics(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read()
    connection.close()
    return text


def test_what_is_over_the_queue_is_refused_at_once_with_a_time_to_come_back(bundle: Path) -> None:
    with running("--model", bundle, "--queue", 1) as server:
        holding = raw(server.port, head(len(PICTURES[0])), PICTURES[0][:50])
        wait_until(lambda: b"canonistia_queue_pictures 1.0" in metrics(server.port))
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", ASK, PICTURES[0])
        answer = connection.getresponse()
        assert answer.status == 503
        assert answer.getheader("Retry-After") == "1"
        connection.close()
        holding.sendall(PICTURES[0][50:])
        assert holding.recv(1000).startswith(b"HTTP/1.1 200")
        holding.close()
        assert ask(server.port, PICTURES[0])[0] == 200


def large_picture() -> bytes:
    """Return a PNG that takes a while to decode: 12 million pixels in a few kilobytes."""
    return encoded(Image.linear_gradient("L").resize((3500, 3500)))


def test_a_late_answer_is_a_504(bundle: Path) -> None:
    slow = large_picture()
    with running("--model", bundle, "--deadline", 0.1, "--threads", 1) as server, ThreadPoolExecutor(16) as clients:
        statuses = list(clients.map(lambda _: ask(server.port, slow)[0], range(16)))
        assert set(statuses) <= {200, 504}
        assert 504 in statuses
        wait_until(lambda: ask(server.port, PICTURES[0])[0] == 200)


def test_two_hundred_megabytes_are_refused_before_they_arrive(bundle: Path) -> None:
    with running("--model", bundle) as server:
        connection = raw(server.port, head(200 * 2**20), b"x" * 100_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")
        connection.close()
        assert ask(server.port, PICTURES[0])[0] == 200


@pytest.mark.parametrize("behind", [False, True])
def test_a_proxy_is_believed_with_behind_proxy_alone_and_no_header_names_the_script(bundle: Path, behind: bool) -> None:
    with running("--model", bundle, *(["--behind-proxy"] if behind else [])) as server:
        said = {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/photos", "SCRIPT_NAME": "/api"}
        asked = urllib.request.Request(f"{server.address}api/docs", headers=said)
        with urllib.request.urlopen(asked) as answer:
            page = answer.read().decode()
        where = f"127.0.0.1:{server.port}"
        assert (f"https://{where}/photos/api/v1/classify" if behind else f"http://{where}/api/v1/classify") in page


def expecting(length: int) -> bytes:
    return head(length).removesuffix(b"\r\n") + b"Expect: 100-continue\r\n\r\n"


def test_a_client_that_waits_before_its_body_is_refused_without_it_or_told_to_go_on(
    bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("secret\n")
    (tmp_path / "keys").chmod(0o600)
    with running("--model", bundle, "--api-key-file", tmp_path / "keys") as server:
        key = b"X-API-Key: secret\r\n"
        refusals = {
            b"413": expecting(200 * 2**20).replace(b"Expect", key + b"Expect"),
            b"401": expecting(len(PICTURES[0])),
        }
        for status, request in refusals.items():
            with raw(server.port, request) as connection:
                answer = b"".join(iter(lambda: connection.recv(10_000), b""))  # until it hangs up
                assert answer.startswith(b"HTTP/1.1 " + status)
                assert b"Connection: close" in answer
        with raw(server.port, expecting(len(PICTURES[0])).replace(b"Expect", key + b"Expect")) as connection:
            received = connection.makefile("rb")
            for _ in range(2):  # the connection can be used again
                assert received.readline() + received.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
                connection.sendall(PICTURES[0])
                status, *headers = iter(received.readline, b"\r\n")
                assert status.startswith(b"HTTP/1.1 200")
                assert b"Connection: keep-alive\r\n" in headers
                (length,) = [line.split()[1] for line in headers if line.startswith(b"Content-Length")]
                received.read(int(length))
                connection.sendall(expecting(len(PICTURES[0])).replace(b"Expect", key + b"Expect"))
            received.close()
        assert server.said() == []


def test_the_log_is_one_json_object_per_line(bundle: Path) -> None:
    with running("--model", bundle, "--log", "json") as server:
        ask(server.port, PICTURES[0])
        ask(server.port, b"text")
        lines = [json.loads(line) for line in server.said()]
    asked = [line for line in lines if line.get("route") == ASK]
    assert [line["status"] for line in asked] == [200, 415]
    assert asked[0]["pictures"] == 1
    assert asked[1]["problem"] == "format"


def test_a_client_that_keeps_its_closed_connection_stalls_nobody(bundle: Path) -> None:
    with running("--model", bundle) as server:
        staying = [
            raw(server.port, b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            for _ in range(8)
        ]
        for connection in staying:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        # Plain gunicorn waits two seconds for each of them, one after the other, and accepts no client meanwhile.
        for _ in range(5):
            assert ask(server.port, PICTURES[0], timeout=10)[0] == 200
        for connection in staying:
            connection.close()
        assert server.said() == []


@pytest.mark.parametrize("body", [b"ZZ\r\nabc\r\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n"], ids=["no size", "no end"])
@pytest.mark.parametrize("path", [ASK, "/"])
def test_a_body_in_broken_chunks_is_a_400(bundle: Path, path: str, body: bytes) -> None:
    with running("--model", bundle) as server:
        lines = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
        connection = raw(server.port, lines.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
        connection.close()
        assert ask(server.port, PICTURES[0])[0] == 200


def test_more_idle_connections_than_select_knows_stop_nothing(bundle: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        with running("--model", bundle) as server:
            idle = [raw(server.port) for _ in range(1100)]
            for _ in range(5):
                assert ask(server.port, PICTURES[0])[0] == 200
            for connection in idle:
                connection.close()
            assert ask(server.port, PICTURES[0])[0] == 200
            assert server.said() == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
