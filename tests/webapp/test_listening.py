"""Where the service listens and how it is started: sockets, systemd, the environment, a file of options."""

import http.client
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import click
import pytest

from cascade.errors import CanonistiaError
from tests.conftest import Run, draw
from tests.serving import free_port, running
from tests.waiting import started, wait_until
from tests.webapps import encoded
from webapp.cli import serve
from webapp.serving.listening import admit_nobody, listen, listen_at_path

PICTURE = encoded(draw("sky", 41))
HEALTH = "/v2/health/live"
SERVE = (sys.executable, "-m", "canonistia", "serve")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def status_at(path: Path, method: str = "GET", target: str = HEALTH, body: bytes | None = None) -> int:
    """Return the status that a service answers at a Unix socket; 0 where none listens."""
    with closing(_UnixConnection(path)) as connection:
        try:
            connection.request(method, target, body, {"Host": "photos.example"})
            return connection.getresponse().status
        except OSError:
            return 0


@contextmanager
def serving_at(path: Path, *options: object) -> Iterator[subprocess.Popen[bytes]]:
    command = [*SERVE, "--bind", f"unix:{path}", *map(str, options)]
    with started(command, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: status_at(path) == 200)
        yield process
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_a_unix_socket_answers_under_any_name_for_other_users_and_is_removed_at_the_end(
    light_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "canonistia.sock"
    with serving_at(path, "--model", light_bundle, "--rate", "2/minute"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        statuses = [status_at(path, "POST", "/api/v1/classify", PICTURE) for _ in range(3)]
        assert statuses == [200, 200, 429]
    assert not path.exists()


def test_the_socket_of_a_killed_service_is_replaced(light_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "canonistia.sock"
    listen_at_path(path).socket.close()
    assert path.exists()
    with serving_at(path, "--model", light_bundle):
        pass


def test_a_socket_in_use_a_file_a_long_path_and_no_folder_are_each_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "canonistia.sock"
    with listen_at_path(path).socket:
        with pytest.raises(CanonistiaError, match="is in use; stop the program that uses it"):
            listen_at_path(path)
        assert path.exists()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(CanonistiaError, match="is there and is no socket"):
        listen_at_path(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
    for wrong in (tmp_path / ("x" * 120), tmp_path / "nothing" / "a.sock"):
        with pytest.raises(CanonistiaError, match=r"no socket can be made at .*; give --bind a path"):
            listen_at_path(wrong)


@pytest.mark.parametrize("given", ["/run/a.sock", "unix:", "127.0.0.1:8000"])
def test_an_address_that_is_no_socket_is_one_sentence(run: Run, given: str) -> None:
    result = run("serve", "--bind", given)
    assert result.exit_code == 2
    assert f"'{given}' is no address of a socket" in result.output


def test_a_socket_beside_a_port_or_for_the_development_server_is_refused(run: Run, tmp_path: Path) -> None:
    bind = ("--bind", f"unix:{tmp_path / 'a.sock'}")
    assert "--bind takes the place of --host and --port" in run("serve", *bind, "--port", 8080).output
    assert "--debug shows code" in run("serve", *bind, "--debug").output


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_the_loopback_of_ipv6_answers_under_its_name_alone(light_bundle: Path) -> None:
    port = free_port()
    with started([*SERVE, "--model", str(light_bundle), "--host", "::1", "--port", str(port)]):

        def status(host: str) -> int:
            with closing(http.client.HTTPConnection("::1", port)) as connection:
                try:
                    connection.request("GET", "/api/v1/models", headers={"Host": host})
                    return connection.getresponse().status
                except OSError:
                    return 0

        wait_until(lambda: status(f"[::1]:{port}") == 200)
        assert status("localhost") == 200
        assert status("rebound.example") == 400


@pytest.mark.parametrize(
    ("host", "names"),
    [("127.0.0.1", {"127.0.0.1", "::1", "localhost"}), ("127.0.0.2", {"127.0.0.2", "localhost"}), ("0.0.0.0", set())],
)
def test_a_listener_on_loopback_knows_its_names_and_others_trust_any(host: str, names: set[str]) -> None:
    listener = listen(host, free_port())
    with listener.socket:
        assert names <= set(listener.names)
        assert bool(names) is listener.is_local


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
@pytest.mark.parametrize("kind", ["port", "path"])
def test_a_socket_that_systemd_made_is_used_and_left(light_bundle: Path, tmp_path: Path, kind: str) -> None:
    path, port = tmp_path / "canonistia.sock", free_port()
    where = f"127.0.0.1:{port}" if kind == "port" else str(path)
    # It waits for the first client, keeps its own variables back, and becomes the service.
    words = ["systemd-socket-activate", f"--listen={where}", f"--setenv=PYTHONPATH={os.getcwd()}"]
    words += [f"--setenv={name}={value}" for name, value in os.environ.items() if name != "PYTHONPATH"]
    log = tmp_path / "log"
    with log.open("wb") as errors, started([*words, *SERVE, "--model", str(light_bundle)], stderr=errors) as process:
        if kind == "port":
            wait_until(lambda: _connects(("127.0.0.1", port)))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{HEALTH}", timeout=60) as answer:
                assert answer.status == 200
        else:
            wait_until(path.exists)
            assert status_at(path) == 200
        assert f"serving {light_bundle.name} at {'http://' if kind == 'port' else 'unix:'}{where}" in log.read_text()
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert kind == "port" or path.exists()


def _connects(address: tuple[str, int]) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(address) == 0


def test_several_sockets_from_systemd_are_one_sentence() -> None:
    script = 'import os, canonistia; os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2"); canonistia.main()'
    result = subprocess.run([sys.executable, "-c", script, "serve"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == (
        "Error: systemd passes 2 sockets; expected one; keep one ListenStream= of the socket unit\n"
    )


def test_systemd_learns_of_readiness_once_the_models_answer(light_bundle: Path, tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        port = free_port()
        words = [*SERVE, "--model", str(light_bundle), "--port", str(port)]
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with started(words, env=environment, stderr=subprocess.DEVNULL) as process:
            said = systemd.recv(1000).decode().splitlines()
            assert "READY=1" in said
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/v2/health/ready")
            assert connection.getresponse().status == 200  # at once: the models are loaded
            connection.close()
            process.terminate()
            assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("option", serve.params, ids=lambda option: option.opts[0])
def test_the_variable_of_every_option_is_named_like_it(option: click.Parameter) -> None:
    flag = option.opts[0].removeprefix("--").replace("-", "_").upper()
    assert (option.envvar or f"CANONISTIA_SERVE_{str(option.name).upper()}") == f"CANONISTIA_SERVE_{flag}"


def test_every_option_can_be_given_by_the_environment(light_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    environment = {
        "CANONISTIA_SERVE_MODEL": str(light_bundle),
        "CANONISTIA_SERVE_TRUSTED_HOST": "photos.example 127.0.0.1",
        "CANONISTIA_SERVE_API_KEY_FILE": str(tmp_path / "keys"),
        "CANONISTIA_SERVE_BEHIND_PROXY": "1",
        "CANONISTIA_SERVE_PREFIX": "/photos",
    }
    with (
        running(environment=environment) as server,
        closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection,
    ):

        def status(host: str, **headers: str) -> int:
            connection.request("GET", "/photos/api/v1/models", headers={"Host": host, **headers})
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert status("photos.example") == 401
        assert status("photos.example", Authorization="Bearer secret") == 200
        assert status("elsewhere.example", Authorization="Bearer secret") == 400


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(
    light_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "serve.toml").write_text(
        f'model = "{light_bundle}"\nport = 1\nprefix = "/file"\nmax_pictures = 7\ntrusted_host = ["127.0.0.1"]\n'
    )
    environment = {"CANONISTIA_SERVE_CONFIG": str(tmp_path / "serve.toml"), "CANONISTIA_SERVE_PREFIX": "/environment"}
    for options, prefix in (((), "/environment"), (("--prefix", "/words"), "/words")):
        with running(*options, environment=environment) as server:
            with urllib.request.urlopen(f"{server.address}api/v1/openapi.json") as answer:
                assert json.load(answer)["servers"] == [{"url": prefix}]
            with urllib.request.urlopen(server.address) as answer:
                assert b"7 " in answer.read()


@pytest.mark.parametrize(
    ("text", "message"),
    [("prot = 1", "has unknown options prot; see --help"), ("port = ", "is not TOML"), ('port = "x"', "'x' is not a")],
)
def test_a_wrong_file_of_options_is_one_sentence(run: Run, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "serve.toml").write_text(text)
    result = run("serve", "--config", tmp_path / "serve.toml")
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0,
    reason="this user may not mount anything",
)
def test_a_root_that_cannot_be_written_suffices(light_bundle: Path) -> None:
    port = free_port()
    read_only = (  # as in a container: the one thing that can be written is the memory at /dev/shm
        "set -e; mount --make-rprivate /; mount -o remount,bind,ro /; "
        "for at in /tmp /var/tmp; do ! mountpoint -q $at || mount -o remount,bind,ro $at; done; "
        '! touch /tmp/written 2> /dev/null; exec "$@"'
    )
    command = [*SERVE, "--model", str(light_bundle), "--port", str(port)]
    with started(["unshare", "--mount", "sh", "-c", read_only, "sh", *command]) as process:

        def answered() -> bool:
            assert process.poll() is None
            with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
                try:
                    connection.request("POST", "/api/v1/classify", PICTURE)
                    return connection.getresponse().status == 200
                except OSError:
                    return False

        wait_until(answered)
        process.terminate()
        assert process.wait(timeout=30) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="packet filters of a socket are Linux's")
def test_a_closing_service_takes_who_waits_and_refuses_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with socket.create_connection(address) as early, ThreadPoolExecutor(1) as pool:
            admit_nobody(listening)
            late = pool.submit(socket.create_connection, address, 30)
            listening.settimeout(0.3)
            taken, _ = listening.accept()
            with taken:
                early.sendall(b"asked")
                assert taken.recv(5) == b"asked"
            with pytest.raises(TimeoutError):  # the late client is not in the queue, where closing would reset it
                listening.accept()
            listening.close()
            with pytest.raises(ConnectionRefusedError):
                late.result()
