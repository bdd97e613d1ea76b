"""The W&B run of a training, read back from its file."""

import csv
import json
from pathlib import Path

import pytest

from cascade.errors import CanonistiaError
from tests import wandb_file
from tests.conftest import CLASSES, Run
from trainers.tracking import start_tracker


def run_file(run: Path) -> Path:
    (path,) = run.glob("wandb/offline-run-*/run-*.wandb")
    return path


def test_the_offline_run_holds_config_every_epoch_and_the_confusion_matrix(tiny_main: Path) -> None:
    path = run_file(tiny_main)
    config = wandb_file.config(path)
    assert config["epochs"] == 6
    assert config["backbone"] == "efficientnet_lite0"
    assert config["classes"] == list(CLASSES)
    assert len(config["data_fingerprint"]) == 64

    with (tiny_main / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    logged = [entry for entry in wandb_file.history(path) if "epoch" in entry]
    assert len(logged) == len(rows) == 6
    for entry, row in zip(logged, rows, strict=True):
        assert {name: entry[name] for name in row} == pytest.approx({name: float(text) for name, text in row.items()})
    assert {"training_loss", "validation_loss", "validation_top1", "validation_top2"} <= set(rows[0])

    (table,) = [entry["confusion.path"] for entry in wandb_file.history(path) if "confusion.path" in entry]
    cells = json.loads((path.parent / "files" / table).read_text())["data"]
    on_disk = json.loads((tiny_main / "confusion.json").read_text())
    expected = [
        [true, predicted, on_disk["pictures"][row][column]]
        for row, true in enumerate(CLASSES)
        for column, predicted in enumerate(CLASSES)
    ]
    assert cells == expected
    assert sum(cell[2] for cell in cells) == 24
    summary = wandb_file.summary(path)
    assert summary["best_top1"] == max(float(row["validation_top1"]) for row in rows)


def test_submodels_join_the_group_of_their_main_model(
    run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path
) -> None:
    words = ("--main", tiny_main, "--out", tmp_path / "subs", "--class", "sky", "--size", 64, "--epochs", 2)
    result = run(
        "train-sub", tiny_data, *words, "--backbone", "efficientnet_lite0", "--tracker", "offline", "--negatives", "all"
    )
    assert result.exit_code == 0, result.output
    assert "wandb sync" not in result.output
    path = run_file(tmp_path / "subs" / "classes" / "sky")
    record = wandb_file.run(path)
    assert (record.run_group, record.job_type, record.display_name) == ("main", "train-sub", "sky")
    assert wandb_file.config(path)["negatives"] == "all"
    logged = [entry for entry in wandb_file.history(path) if "epoch" in entry]
    assert [entry["epoch"] for entry in logged] == [1, 2]
    assert all(0 <= entry["validation_average_precision"] <= 1 for entry in logged)


def test_none_writes_no_record(tmp_path: Path) -> None:
    tracker = start_tracker("none", tmp_path, "n", "g", "j", {})
    tracker.log({"epoch": 1})
    assert tracker.finish({}) == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["online", "auto"])
def test_a_refused_key_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "too short")
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(CanonistiaError, match=r"Weights & Biases refused the key.*--tracker offline"):
        start_tracker(mode, tmp_path, "n", "g", "j", {})


def test_an_account_without_a_network_records_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainers.tracking._PATIENCE", 2)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # a closed port of this machine
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(CanonistiaError, match="cannot be reached"):
        start_tracker("online", tmp_path, "n", "g", "j", {})
    tracker = start_tracker("auto", tmp_path, "n", "g", "j", {"seed": 4})
    tracker.log({"epoch": 1})
    assert "wandb sync" in tracker.finish({})
    assert "Recording this run offline" in capsys.readouterr().err
    assert wandb_file.config(run_file(tmp_path))["seed"] == 4
