"""Classifying on Ray's workers: the rows of the local engine, whatever becomes of workers and drivers."""

import csv
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cascade.outputs.rows import journal_of
from tests.cascade.test_remote import answering
from tests.cascade.test_three_kinds import changed
from tests.conftest import CLASSES, Run, draw
from tests.waiting import wait_until

pytest.importorskip("ray", reason="the cluster extra is not installed")

ROOT = Path(__file__).resolve().parents[2]
# Segments and tasks of a few pictures: a dozen of them have several of each.
SMALL = "cascade.batch.cluster.SEGMENT, cascade.batch.cluster.PORTION = 7, 3"
SCRIPT = "import sys, cascade.batch.cluster, canonistia; {}; canonistia.main(sys.argv[1:])"
MANY = 1200


# A head, which does no work, and two nodes of one core; for each line that it is sent, it loses one.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
cluster = Cluster(initialize_head=True, head_node_args=head)
try:
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        print("lost", flush=True)
finally:
    cluster.shutdown()
"""


@dataclass(frozen=True)
class RunningCluster:
    process: "subprocess.Popen[str]"
    address: str

    def lose_node(self) -> None:
        """Kill all processes of a node."""
        print(file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "lost\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Return a cluster of two cores in a process of its own: Ray leaves files open, which are errors here."""
    mark = tmp_path_factory.mktemp("cluster")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"CANONISTIA_MARK": str(mark)}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], text=True, env=environment, **pipes) as process:
        assert process.stdout is not None
        yield RunningCluster(process, process.stdout.readline().strip())
    end_all(mark)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of many pictures, some of them damaged; links to a few."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(12):
        draw(CLASSES[number % 3], number).save(folder / f"{number:04d}.png")
    (folder / "0005.png").write_bytes(b"no picture")
    for number in range(12, MANY):
        os.link(folder / f"{number % 12:04d}.png", folder / f"{number:04d}.png")
    return folder


@pytest.fixture(scope="module")
def many_rows(many: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the rows that the local engine has for them."""
    out = tmp_path_factory.mktemp("whole") / "rows.csv"
    finished(started(many, "--model", tiny_bundle, "--out", out))
    return out.read_bytes()


def started(*words: object, patch: str = "", folder: Path | None = None) -> "subprocess.Popen[str]":
    """Start classify in a process of its own."""
    front = ["-c", SCRIPT.format(patch)] if patch else ["-m", "canonistia"]
    command = [sys.executable, *front, "classify", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, cwd=folder, **pipes)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return what starts commands, which end with the test; whatever they started themselves bears its mark."""
    monkeypatch.setenv("CANONISTIA_MARK", str(tmp_path))
    processes: list[subprocess.Popen[str]] = []

    def start_one(*words: object, **options: Any) -> "subprocess.Popen[str]":
        processes.append(started(*words, **options))
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()
    end_all(tmp_path)


def finished(process: "subprocess.Popen[str]", status: int = 3) -> str:
    """Wait for the end of a command and return what it said; its standard output is for rows."""
    rows, said = process.communicate(timeout=300)
    assert process.returncode == status, said
    assert rows == ""
    return said


def marked(mark: Path) -> dict[int, str]:
    """Return the processes that descend from a command which was started with this mark, by their numbers."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(f"CANONISTIA_MARK={mark}\0") in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it ended meanwhile
            continue
    return found


def end_all(mark: Path) -> None:
    """Wait for the end of what bears a mark. Agents of a cluster that was killed notice it after a minute: no wait."""
    for process, name in marked(mark).items():
        if "Agent" in name:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    wait_until(lambda: not marked(mark))


def holds_rows(out: Path) -> bool:
    # An empty journal has 20,480 bytes.
    return journal_of(out).exists() and journal_of(out).stat().st_size > 40_000


def test_rows_and_their_order_are_those_of_the_local_engine(
    cluster: RunningCluster, routing_bundle: Path, tmp_path: Path, start: Start
) -> None:
    both = {"weights": {"second_submodel": 1.0}, "threshold": -100.0, "false_mark_rate": 0.02}
    accept = {"threshold": 1.0, "accuracy": 0.99, "confidence": 0.95, "pictures": 300, "accepted": 299, "mistakes": 0}
    marking = changed(routing_bundle, tmp_path / "marking", both=both, accept=accept)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(20):
        draw(CLASSES[number % 3], number).save(photos / f"{number:02d}.png")
    os.rename(photos / "07.png", os.fsencode(photos) + b"/caf\xe9.png")
    (photos / "03.png").write_bytes(b"no picture")
    (photos / "04.png").write_bytes((photos / "05.png").read_bytes()[:500])
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        for number in range(4):
            archive.write(photos / f"{number:02d}.png", f"inside/{number}.png")
        archive.write(photos / "00.png", "../out.png")
    with tarfile.open(tmp_path / "more.tar", "w") as tar:
        for number in range(4):
            tar.add(photos / f"1{number}.png", f"{number}.png")
    (tmp_path / "list").write_text("photos/gone.png\nphotos/01.png\n")
    options = ("--out", "ray.csv", "--report", "report.html", "--engine", "ray", "--address", cluster.address)
    with answering([200]) as address:
        words = ("photos", "more.zip", "more.tar", "@list", f"{address}/a.png", "--model", marking)
        finished(start(*words, "--out", "local.csv", folder=tmp_path))
        said = finished(start(*words, *options, patch=SMALL, folder=tmp_path))
    with (tmp_path / "ray.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    accepted = [row["accepted"] for row in rows if not row["error"]]
    told = f"{accepted.count('true')} of 27 answers are accepted; look at the other {accepted.count('false')} yourself"
    assert said == f"32 rows in ray.csv, 5 of them errors\n{told}\n"
    assert "true" in {row["both"] for row in rows}
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
    assert "data:image/jpeg" in (tmp_path / "report.html").read_text()


def test_workers_import_nothing_from_among_the_pictures(
    cluster: RunningCluster, tiny_bundle: Path, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as for the installed command, whose own path has no current folder
    draw("sky", 1).save(tmp_path / "sky.png")
    for name in ("PIL", "numpy", "pyarrow", "cascade", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')")
    options = ("--out", "ray.csv", "--engine", "ray", "--address", cluster.address)
    finished(start("sky.png", "--model", tiny_bundle, *options, folder=tmp_path), 0)
    assert (tmp_path / "ray.csv").read_text().splitlines()[1].startswith("sky.png,")


def test_main_only_reaches_the_workers(
    cluster: RunningCluster, routing_bundle: Path, tmp_path: Path, start: Start
) -> None:
    draw("sky", 1).save(tmp_path / "sky.png")
    words = ("sky.png", "--model", routing_bundle, "--main-only")
    finished(start(*words, "--out", "local.csv", folder=tmp_path), 0)
    options = ("--out", "ray.csv", "--engine", "ray", "--address", cluster.address)
    finished(start(*words, *options, folder=tmp_path), 0)
    assert ",main,false," in (tmp_path / "ray.csv").read_text()
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_a_stopped_driver_keeps_its_rows_and_goes_on_by_content(
    cluster: RunningCluster, tiny_bundle: Path, many: Path, many_rows: bytes, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "rows.csv"
    words = (many, "--model", tiny_bundle, "--out", out, "--hash", "--engine", "ray", "--address", cluster.address)
    process = start(*words, patch="cascade.batch.cluster.PORTION = 32")
    wait_until(lambda: holds_rows(out))
    process.send_signal(signal.SIGINT)
    said = finished(process, 1)
    assert said.startswith(f"\nstopped; the rows so far are kept: run again with --resume --out {out}")
    assert "Traceback" not in said
    finished(start(*words, "--resume"))
    assert out.read_bytes() == many_rows


def test_a_killed_driver_takes_its_workers_along_and_goes_on(
    cluster: RunningCluster, tiny_bundle: Path, many: Path, many_rows: bytes, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "rows.csv"
    words = (many, "--model", tiny_bundle, "--out", out, "--engine", "ray")
    process = start(*words, "--workers", 2, patch="cascade.batch.cluster.PORTION = 32")
    wait_until(lambda: holds_rows(out))
    assert any("MapWorker" in name for name in marked(tmp_path).values())
    process.kill()
    wait_until(lambda: all("Agent" in name for name in marked(tmp_path).values()))
    finished(start(*words, "--resume", "--address", cluster.address))
    assert out.read_bytes() == many_rows


def test_workers_that_cannot_start_are_told_in_a_sentence(
    cluster: RunningCluster, tiny_bundle: Path, many: Path, tmp_path: Path, start: Start
) -> None:
    patch = "cascade.batch.cluster._files = lambda bundle: {'bundle.json': b'{}'}"
    words = (many, "--model", tiny_bundle, "--out", tmp_path / "rows.csv", "--engine", "ray")
    said = finished(start(*words, "--address", cluster.address, patch=patch), 1)
    assert said.startswith("Error: Ray's workers failed (cascade.bundle.reading.BundleError: ")
    assert "every node" in said
    assert said.count("\n") == 1


def test_a_node_that_is_lost_costs_no_row(
    cluster: RunningCluster, tiny_bundle: Path, many: Path, many_rows: bytes, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "rows.csv"
    words = (many, "--model", tiny_bundle, "--out", out, "--engine", "ray", "--address", cluster.address)
    process = start(*words, patch="cascade.batch.cluster.PORTION = 32")
    wait_until(lambda: holds_rows(out))
    assert process.poll() is None
    cluster.lose_node()
    finished(process)
    assert out.read_bytes() == many_rows


def test_an_address_where_no_cluster_answers_is_told_in_a_sentence(many: Path, tiny_bundle: Path, start: Start) -> None:
    said = finished(start(many, "--model", tiny_bundle, "--engine", "ray", "--address", "127.0.0.1:1"), 1)
    assert said.startswith("Error: no Ray cluster answers at 127.0.0.1:1 (")
    assert "expected HOST:PORT" in said
    assert said.count("\n") == 1


def test_without_ray_the_extra_is_named(run: Run, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cascade.batch.cluster", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("classify", many, "--engine", "ray")
    assert result.exit_code == 1
    assert "needs ray" in result.output
    assert "pip install '.[cluster]'" in result.output


@pytest.mark.parametrize("words", [("--workers", 2), ("--address", "auto"), ("--engine", "ray", "--threads", 2)])
def test_options_of_the_other_engine_are_refused(run: Run, many: Path, words: tuple[object, ...]) -> None:
    result = run("classify", many, *words)
    assert result.exit_code == 2
    assert "--engine" in result.output
