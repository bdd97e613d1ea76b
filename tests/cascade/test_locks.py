"""Locks and durability: one process writes an output, and what a kill leaves is put right."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cascade.errors import CanonistiaError
from cascade.files import aside, hidden, restore, written_whole
from cascade.locks import exclusive
from cascade.outputs.rows import journal_of
from tests.conftest import Run
from tests.waiting import started, wait_until

ROOT = Path(__file__).resolve().parents[2]

HOLDER = """
import sys, time
from pathlib import Path
from cascade.locks import exclusive
with exclusive(Path(sys.argv[1])):
    Path(sys.argv[2]).touch()
    time.sleep(60)
"""

# Replaces a folder, and is killed at the n-th change of a name.
REPLACER = """
import os, signal, sys
from pathlib import Path
from cascade.files import written_whole
from cascade.locks import exclusive
path, steps = Path(sys.argv[1]), int(sys.argv[2])
def killed(act):
    def counted(*words, **more):
        global steps
        steps -= 1
        if steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*words, **more)
    return counted
os.replace, os.unlink, os.rmdir = killed(os.replace), killed(os.unlink), killed(os.rmdir)
with exclusive(path), written_whole(path) as partial:
    partial.mkdir()
    (partial / "bundle.json").write_text("new")
"""

COLLECTOR = """
import io, sys
from pathlib import Path
from types import SimpleNamespace
from PIL import Image
from cascade.inference.prediction import Prediction
from webapp.requests.corrections import Collector
collector = Collector(Path(sys.argv[1]), 10**9)
start = int(sys.argv[2])
served = SimpleNamespace(name="m", engine=SimpleNamespace(classes=("a", "b")))
for number in range(start, start + 25):
    prediction = Prediction("a", 0.9, "b", 0.1, "main", False, False, None)
    picture = Image.new("RGB", (4, 4), (number, 0, 0))
    answer = SimpleNamespace(preview=picture, prediction=prediction, outcome=SimpleNamespace(doubt=0.1))
    collector.save(collector.offer(answer, served), "b")
    print(number, flush=True)
"""


def script(text: str, *words: object) -> list[str]:
    return [sys.executable, "-c", text, *map(str, words)]


def test_one_process_has_the_lock_and_it_ends_with_the_process(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    with started(script(HOLDER, out, tmp_path / "held"), cwd=ROOT) as process:
        wait_until((tmp_path / "held").exists)
        with pytest.raises(CanonistiaError, match="another process is writing"), exclusive(out):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with exclusive(out):
            pass
    assert os.listdir(tmp_path) == ["held"]


def test_a_second_run_of_an_output_is_refused_and_takes_nothing_away(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.csv"
    journal_of(out).write_bytes(b"rows of the first run")
    words = ("classify", tiny_data / "validation", "--model", tiny_bundle, "--out", out)
    with exclusive(out):
        for more in ((), ("--resume",), ("--overwrite",)):
            result = run(*words, *more)
            assert result.exit_code == 1
            assert f"another process is writing {out}" in result.output
    assert journal_of(out).read_bytes() == b"rows of the first run"
    assert run(*words, "--overwrite").exit_code == 0
    assert sorted(os.listdir(tmp_path)) == ["rows.csv"]


def test_a_second_run_that_sorts_into_one_folder_is_refused(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "sorted").mkdir()
    words = ("classify", tiny_data / "validation" / "sky", "--model", tiny_bundle, "--sort-into", tmp_path / "sorted")
    with exclusive(tmp_path / "sorted", inside=True):
        result = run(*words)
        assert result.exit_code == 1
        assert f"another process is writing {tmp_path / 'sorted'}" in result.output
        assert run(*words, "--dry-run").exit_code == 0
    assert run(*words).exit_code == 0
    assert not [path for path in (tmp_path / "sorted").iterdir() if path.name.startswith(".")]


def test_an_old_folder_that_is_all_that_is_left_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bundle"
    (path / "old").mkdir(parents=True)
    replace = os.replace

    def broken(old: Path, new: Path) -> None:
        if new == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("cascade.files.os.replace", broken)
        with pytest.raises(OSError, match="Input/output"), written_whole(path) as partial:
            partial.mkdir()
    assert os.listdir(tmp_path) == [aside(path).name]
    restore(path)
    assert os.listdir(path) == ["old"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_a_disk_that_is_full_at_the_last_step_keeps_the_rows(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    words = ("classify", tiny_data / "validation" / "sky", "--model", tiny_bundle, "--out", tmp_path / name)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("cascade.files.os.fsync", full)
        result = run(*words)
    assert result.exit_code == 1
    assert "free some space and run again with --resume" in result.output
    assert os.listdir(tmp_path) == [f"{name}.progress"]
    assert run(*words, "--resume").exit_code == 0
    assert os.listdir(tmp_path) == [name]


def test_the_journal_goes_only_when_the_output_is_on_the_disk(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    act = {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}

    def told(name: str, *words: Any, **more: Any) -> Any:
        if name != "unlink" or str(words[0]).endswith(".progress"):
            happened.append(name)
        return act[name](*words, **more)

    for name in act:
        monkeypatch.setattr(os, name, partial(told, name))
    out = tmp_path / "rows.csv"
    assert run("classify", tiny_data / "validation" / "sky", "--model", tiny_bundle, "--out", out).exit_code == 0
    assert happened[-4:] == ["fsync", "replace", "fsync", "unlink"]  # content, name, folder; then the journal


def test_a_reader_that_comes_between_harms_neither_folder(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    for lost in (aside(path), path):
        (lost / "a").mkdir(parents=True)
    restore(path)  # the new one came meanwhile
    assert sorted(os.listdir(tmp_path)) == sorted([aside(path).name, "bundle"])
    shutil.rmtree(path)
    restore(path)
    assert os.listdir(tmp_path) == ["bundle"]
    restore(path)
    assert (path / "a").is_dir()


def test_what_a_killed_process_left_unfinished_is_removed_by_the_next(tmp_path: Path) -> None:
    left = hidden(tmp_path / "a", "99999999.partial")
    left.mkdir()
    (left / "half.onnx").touch()
    with exclusive(tmp_path / "a"):
        assert not left.exists()


def test_a_folder_replaced_by_a_process_that_is_killed_is_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    found = []
    for steps in range(9):
        path.mkdir(exist_ok=True)
        (path / "bundle.json").write_text("old")
        done = subprocess.run(script(REPLACER, path, steps), cwd=ROOT, check=False)
        assert done.returncode in (0, -signal.SIGKILL)
        restore(path)
        found.append((path / "bundle.json").read_text())
    assert found == sorted(found, reverse=True)  # from one step on, it is the new one
    assert set(found) == {"old", "new"}
    subprocess.run(script(REPLACER, path, 99), cwd=ROOT, check=True)
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_bundle_that_a_killed_export_moved_aside_is_found(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    folder = tmp_path / "mine"
    shutil.copytree(tiny_bundle, aside(folder))
    monkeypatch.setenv("CANONISTIA_MODELS", str(tmp_path))
    picture = next((tiny_data / "validation").rglob("*.png"))
    assert run("classify", picture, "--model", "mine").exit_code == 0
    assert os.listdir(tmp_path) == ["mine"]


def test_two_services_that_collect_into_one_folder_lose_no_correction(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(script(COLLECTOR, tmp_path, start), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for start in (0, 100)
    ]
    acknowledged = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [len(numbers) for numbers in acknowledged] == [25, 25]
    assert len((tmp_path / "corrections.csv").read_text().splitlines()) == 51


KILLED_RUN = """
import json, os, signal, sys
from pathlib import Path
from trainers.distributed.process_context import ProcessContext
from trainers.runs.opening import open_run
folder = Path(sys.argv[1])
with open_run(folder, json.loads((folder / "config.json").read_text()), True, False, ProcessContext("cpu")):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_finished_run_outlives_an_overwrite_that_is_killed_early(tiny_main: Path, tmp_path: Path) -> None:

    from trainers.runs.folder import load_run

    folder = shutil.copytree(tiny_main, tmp_path / "main")
    before = json.loads((folder / "summary.json").read_text())
    done = subprocess.run(script(KILLED_RUN, folder), cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    load_run(folder)
    assert json.loads((folder / "summary.json").read_text()) == before


def test_an_overwrite_never_touches_a_folder_that_is_no_run(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    words = ("train-main", tiny_data, "--out", tmp_path / "mine", "--overwrite", "--tracker", "none")
    assert "is not empty" in run(*words).output
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
