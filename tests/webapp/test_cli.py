"""The serve command: wrong options are refused in one sentence before anything is served."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.serving import free_port
from webapp.server import Server


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", "often"), "'often' is not a rate; expected such as '60/minute'"),
        (("--model", "no such"), "no bundle 'no such'"),
        (("--api-key-file", "empty"), "holds no key; expected one per line"),
        (("--api-key-file", "comments"), "holds no key; expected one per line"),
        (("--api-key-file", "binary"), "cannot be read (it is not UTF-8 text)"),
        (("--host", "0.0.0.0", "--debug"), "--debug shows code to whoever reaches 0.0.0.0"),
        (("--host", "::", "--debug"), "--debug shows code to whoever reaches ::"),
        (("--host", "192.0.2.1"), "192.0.2.1 cannot be listened on (Cannot assign requested address)"),
        (("--host", "x" * 300), "cannot be found"),
    ],
)
def test_serve_says_what_is_wrong_with_its_options(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "comments").write_text("# the key of the page\n\n  # and of the API\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    result = run("serve", "--port", free_port(), *options)
    assert result.exit_code != 0
    assert message in result.output.replace("\n", " ")


def test_too_little_memory_is_told_at_once(run: Run, tiny_bundle: Path) -> None:
    result = run("serve", "--port", free_port(), "--model", tiny_bundle, "--memory", 1)
    assert result.exit_code == 1
    assert "--memory allows 1" in result.output


def test_two_bundles_of_one_name_are_told_at_once(run: Run, tiny_bundle: Path) -> None:
    result = run("serve", "--port", free_port(), "--model", tiny_bundle, "--model", tiny_bundle)
    assert result.exit_code == 1
    assert result.output == "Error: several bundles are named tiny; serve bundles with different names\n"


def test_a_port_in_use_is_told_before_a_bundle_is_looked_for(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run("serve", "--port", port, "--model", "no such")
    assert result.exit_code == 1
    message = f"port {port} of 127.0.0.1 is in use; stop the program that uses it, or choose another --port"
    assert result.output == f"Error: {message}\n"


@pytest.fixture
def nothing_served(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    logger = logging.getLogger("canonistia")
    before = list(logger.handlers), logger.level, logger.propagate
    monkeypatch.setattr(Server, "run", lambda _: None)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.usefixtures("nothing_served")
@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_key_file_for_everyone_is_told(
    run: Run, tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: int, is_told: bool
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# ours\nsecret\n")
    keys.chmod(mode)
    assert run("serve", "--port", free_port(), "--model", tiny_bundle, "--api-key-file", keys).exit_code == 0
    assert (f"every user of this machine can read {keys}; chmod 600 it" in capfd.readouterr().err) is is_told


@pytest.mark.usefixtures("nothing_served")
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("::", "[::]"), ("localhost", "localhost")])
def test_every_form_of_an_address_is_taken_and_shown(
    run: Run, tiny_bundle: Path, capfd: pytest.CaptureFixture[str], host: str, shown: str
) -> None:
    port = free_port()
    assert run("serve", "--host", host, "--port", port, "--model", tiny_bundle).exit_code == 0
    assert f"serving tiny at http://{shown}:{port} " in capfd.readouterr().err
