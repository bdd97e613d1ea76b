"""Trainings in several processes, and submodels trained side by side, as a person starts them."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Run, run_command, write_class_folders, write_data_set
from tests.waiting import started, wait_until
from trainers.runs.submodels import class_run, load_submodels

TINY = ("--backbone", "timm/test_vit", "--no-pretrained", "--size", "32", "--tracker", "none", "--seed", "1")
# No chance but in the order: what is left is the arithmetic of the gradients.
PLAIN = (*TINY, "--unfreeze", "all", "--augment", "light", "--dropout", "0", "--epochs", "2", "--batch-size", "5")
SCORES = ("training_loss", "validation_loss", "validation_top1", "validation_top2", "validation_seed_score")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("few") / "data", training=4, validation=3)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "canonistia", *map(str, arguments)]


def metrics(run: Path) -> list[list[float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [[float(row[name]) for name in SCORES] for row in csv.DictReader(file)]


@pytest.mark.parametrize("backbone", ["timm/test_vit", "timm/test_resnet"])  # layer norm, batch norm
def test_two_processes_and_one_with_the_same_batch_give_the_same(backbone: str, few: Path, tmp_path: Path) -> None:
    # 12 pictures in batches of 5: the last step has 2, one for each process; of the others one process has 3.
    # One thread a process: sums in another order alone move a batch-norm network's loss by 0.001 in two epochs.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name, processes in (("one", 1), ("two", 2)):
        options = ("--out", tmp_path / name, "--backbone", backbone, "--processes", processes)
        arguments = command("train-main", few, *PLAIN, *options)
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(one) == len(two) == 2
    for row, other in zip(one, two, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)
    first, second = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)
    assert done.stderr.count("next: canonistia train-sub") == 1


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a folder with modules that are named as packages of canonistia and cannot be imported."""
    for name in ("cascade", "trainers", "export"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the current folder was imported')")
    return tmp_path


def test_modules_of_the_current_folder_are_not_imported_by_processes(few: Path, hostile: Path) -> None:
    started = [sys.executable, "-P", "-m", "canonistia"]  # as the installed command starts: without the current folder
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = ("train-main", few, "--out", "main", *TINY, "--epochs", 1, "--no-report", "--processes", 2)
    subs = ("train-sub", few, "--main", "main", "--out", "subs", *TINY, "--epochs", 1, "--class", "sky")
    for inputs in (arguments, (*subs, "--engine", "ray")):
        asked = [*started, *map(str, inputs)]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment, cwd=hostile)
        assert done.returncode == 0, done.stderr
    assert (class_run(hostile / "subs", "sky") / "summary.json").exists()


CONNECT = """
import ray
from cascade.batch.cluster_connection import connect
connect(cores=1)
print(ray.get_runtime_context().gcs_address)
"""


def test_a_cluster_that_someone_else_started_here_is_not_joined() -> None:
    # The file that Ray itself would take the address from. Not in pytest's folder: Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray/ray_current_cluster").write_text("127.0.0.1:9")
        environment = os.environ | {"RAY_TMPDIR": folder, "RAY_ADDRESS": ""}
        done = subprocess.run(
            [sys.executable, "-c", CONNECT], capture_output=True, text=True, check=False, env=environment
        )
    assert done.returncode == 0, done.stderr
    host, _, port = done.stdout.strip().rpartition(":")
    assert host
    assert port.isdecimal()
    assert port != "9"


def test_a_cluster_that_does_not_answer_is_told_in_a_sentence(
    run: Run, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert run("train-main", few, "--out", tmp_path / "main", *TINY, "--epochs", 1).exit_code == 0
    subs = ("train-sub", few, "--main", tmp_path / "main", "--out", tmp_path / "subs", *TINY, "--epochs", 1)
    done = run(*subs, "--engine", "ray")
    assert done.exit_code == 1
    assert "Error: no Ray cluster answers at 127.0.0.1:1 (" in done.output


def test_more_processes_than_pictures_are_refused(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trainers.commands.train_main as recipe
    from cascade.errors import CanonistiaError
    from trainers.distributed.process_context import ProcessContext
    from trainers.networks.config import NetworkConfig
    from trainers.recipe import Recipe

    monkeypatch.setattr(recipe, "process_context", lambda device: ProcessContext("cpu", 0, 13))
    monkeypatch.setattr(ProcessContext, "wait", lambda self: None)
    network_config = NetworkConfig("timm/test_vit", size=32, pretrained=False)
    whole = Recipe(unfreeze="all", tracker="none", precision="fp32")
    with pytest.raises(CanonistiaError, match="13 processes share 12 training pictures, expected at least one each"):
        recipe.train_main(few, tmp_path / "run", network_config, whole)
    assert not (tmp_path / "run").exists()


def workers(mark: str) -> list[int]:
    """Return the processes of Ray that train a submodel with this mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if title.startswith(b"ray::_train") and mark.encode() in environment:
            found.append(int(process.name))
    return found


def test_ray_trains_all_fifteen_submodels_though_a_worker_is_killed_half_way(tmp_path: Path) -> None:
    labels = [f"kind {letter}" for letter in "abcdefghijklmno"]
    data, main, subs = tmp_path / "data", tmp_path / "main", tmp_path / "subs"
    write_class_folders(data / "training", dict.fromkeys(labels, 2), 0)
    write_class_folders(data / "validation", dict.fromkeys(labels, 1), 500)
    assert run_command("train-main", data, "--out", main, *TINY, "--epochs", 1).exit_code == 0
    arguments = command("train-sub", data, "--main", main, "--out", subs, *TINY, "--epochs", 30, "--engine", "ray")
    environment = os.environ | {"CANONISTIA_MARK": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with started(arguments, stderr=subprocess.PIPE, text=True, env=environment) as process:

        def workers_half_way() -> list[int]:
            assert process.poll() is None, process.communicate()
            return workers(str(tmp_path)) if len(list(subs.glob("classes/*/summary.json"))) >= 7 else []

        os.kill(wait_until(workers_half_way, what="the seventh submodel")[0], signal.SIGKILL)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "trained 15 submodels" in said
    assert len(load_submodels(subs).networks) == 15
    assert all(json.loads((class_run(subs, label) / "summary.json").read_text())["epochs"] == 30 for label in labels)


def test_a_resumed_set_keeps_the_finished_submodels(run: Run, few: Path, tmp_path: Path) -> None:
    main, subs = tmp_path / "main", tmp_path / "subs"
    assert run("train-main", few, "--out", main, *TINY, "--epochs", 1).exit_code == 0
    arguments = ("train-sub", few, "--main", main, "--out", subs, *TINY, "--epochs", 2)
    assert run(*arguments, "--class", "sky").exit_code == 0
    before = (class_run(subs, "sky") / "last.safetensors").stat().st_mtime_ns
    done = run(*arguments, "--resume")
    assert done.exit_code == 0, done.output
    assert (class_run(subs, "sky") / "last.safetensors").stat().st_mtime_ns == before
    assert len(load_submodels(subs).networks) == 3
