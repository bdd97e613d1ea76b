"""The W&B run of a training, read back from its file."""

import csv
import json
import time
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from PIL import Image

import canonistia
from cascade.errors import CanonistiaError
from tests import wandb_file
from tests.conftest import CLASSES, Run, run_command
from tests.waiting import wait_until
from trainers.runs.tracking import start_tracker


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
    assert rows[int(summary["best_epoch"]) - 1]["validation_top1"] == str(summary["best_top1"])
    assert {"learning_rate", "pictures_per_second", "validation_seed_score"} <= set(logged[0])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(path: Path, name: str) -> list[list[Any]]:
    (place,) = [entry[f"{name}.path"] for entry in wandb_file.history(path) if f"{name}.path" in entry]
    return json.loads((path.parent / "files" / place).read_text())["data"]


@pytest.fixture(scope="module")
def unsure_main(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a main run that was hardly trained, so that it makes mistakes, with a submodel of it."""
    folder = tmp_path_factory.mktemp("unsure")
    arguments = ("--backbone", "timm/test_vit", "--no-pretrained", "--size", 32, "--tracker", "offline", "--epochs", 1)
    assert run_command("train-main", tiny_data, "--out", folder / "main", *arguments).exit_code == 0
    subs = ("--main", folder / "main", "--out", folder / "subs", "--class", "sky")
    assert run_command("train-sub", tiny_data, *subs, *arguments).exit_code == 0
    return folder / "main"


@pytest.mark.parametrize(("place", "classes"), [("main", CLASSES), ("subs/classes/sky", ("other", "sky"))])
def test_main_and_submodel_record_figures_a_class_mistakes_curves_and_lineage(
    unsure_main: Path, place: str, classes: tuple[str, ...]
) -> None:
    run = unsure_main.parent / place
    path = run_file(run)
    on_disk = rows_of(run / "by_class.csv")
    assert [row[0] for row in table(path, "by_class")] == list(classes)
    assert [row[1:3] for row in table(path, "by_class")] == [
        [float(r["precision"]), float(r["recall"])] for r in on_disk
    ]
    mistakes = table(path, "mistakes")
    assert len(mistakes) == len(rows_of(run / "mistakes.csv")) > 0
    assert all(name.endswith(".png") and true != predicted for _, name, true, predicted, _ in mistakes)
    thumbnails = wandb_file.table_pictures(path, "mistakes")
    assert len(thumbnails) == len(mistakes)
    with Image.open(thumbnails[0]) as thumbnail:
        assert thumbnail.size == (72, 60)
    (curves,) = [entry["curves.path"] for entry in wandb_file.history(path) if "curves.path" in entry]
    assert (path.parent / "files" / curves).exists()
    used, made = wandb_file.artifacts(path)
    fingerprint = wandb_file.config(path)["data_fingerprint"]
    assert used == {f"data-{fingerprint[:12]}": set()}
    files = {f"{name}.{ending}" for name in ("last", "best") for ending in ("safetensors", "json")}
    assert made == {f"main-{run.name}": files}
    assert wandb_file.run(path).run_group == "main"


def test_a_bundle_is_recorded_with_the_runs_that_it_was_made_from(tiny_main: Path, tiny_bundle: Path) -> None:
    path = run_file(tiny_main / "exports" / "tiny")
    used, made = wandb_file.artifacts(path)
    fingerprint = wandb_file.config(run_file(tiny_main))["data_fingerprint"]
    assert set(used) == {f"data-{fingerprint[:12]}", "main-main", *(f"main-{label}" for label in CLASSES)}
    assert used["main-main"] == wandb_file.artifacts(run_file(tiny_main))[1]["main-main"]
    (files,) = made.values()
    assert {f"tiny/{p.relative_to(tiny_bundle)}" for p in tiny_bundle.rglob("*") if p.is_file()} == files
    assert wandb_file.run(path).run_group == "main"


def test_a_resumed_run_goes_on_with_its_wandb_run(tmp_path: Path) -> None:
    for _ in range(2):
        tracker = start_tracker("offline", tmp_path, "n", "g", "j", {})
        tracker.log({"epoch": 1})
        assert "wandb sync" in tracker.finish({})
        time.sleep(1.1)  # W&B names a file by its second
    files = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({wandb_file.run(path).run_id for path in files}) == 1


def test_submodels_join_the_group_of_their_main_model(
    run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path
) -> None:
    arguments = ("--main", tiny_main, "--out", tmp_path / "subs", "--class", "sky", "--size", 64, "--epochs", 2)
    result = run(
        "train-sub",
        tiny_data,
        *arguments,
        "--backbone",
        "efficientnet_lite0",
        "--tracker",
        "offline",
        "--negatives",
        "all",
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
    monkeypatch.setattr("trainers.runs.tracking._PATIENCE", 2)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # a closed port of this machine
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(CanonistiaError, match="cannot be reached"):
        start_tracker("online", tmp_path, "n", "g", "j", {})
    tracker = start_tracker("auto", tmp_path, "n", "g", "j", {"seed": 4})
    tracker.log({"epoch": 1})
    assert "wandb sync" in tracker.finish({})
    assert "Recording this run offline" in capsys.readouterr().err
    # The service that writes the file may still be busy with the run before.
    wait_until(lambda: "seed" in wandb_file.config(run_file(tmp_path)), 20, "the record of the settings")
    assert wandb_file.config(run_file(tmp_path))["seed"] == 4


def test_the_sweep_calls_train_main_with_options_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    sweep = yaml.safe_load((Path(__file__).resolve().parents[2] / "docs" / "sweep.yaml").read_text())
    trial = {
        name: {"value": (given.get("values") or [given.get("min")])[0]} for name, given in sweep["parameters"].items()
    }
    arguments = create_sweep_command(sweep["command"])
    assert arguments[:3] == ["${env}", "canonistia", "train-main"]
    arguments = [*arguments[3:-1], *create_sweep_command_args({"args": trial})["args"]]
    assert "runs/abc123" in arguments
    command = canonistia.main.get_command(click.Context(canonistia.main), "train-main")
    assert command is not None
    context = command.make_context("train-main", ["." if word == "photos" else word for word in arguments])
    assert context.params["lr"] == 0.0003
    assert context.params["mix"] == "none"
    assert sweep["metric"]["name"] == "best_top1"
