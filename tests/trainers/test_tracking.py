"""The W&B run of a training, read back from its file."""

import csv
import json
import os
import time
from collections.abc import Iterator
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
from trainers.runs.tracking import checkpoint_artifact, start_tracker, tracker_mode


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


def test_a_refused_key_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "too short")
    with pytest.raises(CanonistiaError, match=r"Weights & Biases refused the key.*--tracker offline"):
        start_tracker("online", tmp_path, "n", "g", "j", {})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("disabled", "none"), ("dryrun", "offline"), ("offline", "offline"), ("online", "online"), ("Run", "online")],
)
def test_wandb_mode_decides_unless_a_tracker_is_named(wanted: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", wanted)
    assert tracker_mode("auto") == found
    assert [tracker_mode(mode) for mode in ("online", "offline", "none")] == ["online", "offline", "none"]


@pytest.mark.parametrize("wanted", ["", "nonsense"])
def test_a_mode_that_wandb_lacks_is_refused_before_the_work(
    wanted: str, run: Run, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", wanted)
    result = run("train-main", tiny_data, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert f"WANDB_MODE is '{wanted}', expected online" in result.output
    assert not (tmp_path / "run").exists()


@pytest.fixture
def fresh_wandb() -> Iterator[None]:
    """Let W&B read its variables anew: it does so once in a process."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("fresh_wandb")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_DIR", "/proc/nowhere", "refused the run"),
        ("WANDB_BASE_URL", "not an address", "refused the run"),
        ("WANDB_INIT_TIMEOUT", "soon", "refused the run"),
    ],
)
def test_a_setting_that_wandb_refuses_is_one_sentence(
    name: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CanonistiaError, match=said) as caught:
        start_tracker("offline", tmp_path, "n", "g", "j", {})
    assert "\n" not in str(caught.value)
    assert "WANDB_DATA_DIR" not in os.environ


@pytest.mark.usefixtures("fresh_wandb")
def test_an_account_without_a_network_records_offline_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainers.runs.tracking._PATIENCE", 2)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # a closed port of this machine
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(CanonistiaError, match="cannot be reached"):
        start_tracker("online", tmp_path, "n", "g", "j", {})
    assert tracker_mode("auto") == "offline"
    assert capsys.readouterr().err.count("cannot be reached; recording offline") == 1
    # Something answers there, and it is not the service.
    monkeypatch.setattr("trainers.runs.tracking._answers", lambda: True)
    assert tracker_mode("auto") == "auto"
    assert start_tracker("auto", tmp_path, "n", "g", "j", {}).finish({}).startswith("offline W&B run")
    assert "Recording this run offline" in capsys.readouterr().err


@pytest.mark.usefixtures("fresh_wandb")
def test_what_the_user_set_for_wandb_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "WANDB_NAME": "mine",
        "WANDB_RUN_GROUP": "these",
        "WANDB_PROJECT": "scenes",
        "WANDB_JOB_TYPE": "trial",
        "WANDB_RUN_ID": "abc123",
        "WANDB_NOTES": "on a Friday",
        "WANDB_TAGS": "one,two",
        "WANDB_DIR": str(tmp_path / "elsewhere"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for job, apart in (("train-main", ""), ("train-sub", "-sky")):
        (tmp_path / job).mkdir()
        tracker = start_tracker("offline", tmp_path / job, "sky", "g", job, {})
        tracker.log({"epoch": 1})
        assert "elsewhere" in tracker.finish({})
        (path,) = (tmp_path / "elsewhere").glob(f"wandb/offline-run-*-abc123{apart}/run-*.wandb")
        record = wandb_file.run(path)
        assert (record.display_name, record.run_id) == (f"mine{apart}", f"abc123{apart}")
        assert (record.run_group, record.project, record.job_type) == ("these", "scenes", "trial")
        assert (record.notes, list(record.tags)) == ("on a Friday", ["one", "two"])


@pytest.mark.usefixtures("fresh_wandb")
def test_a_run_leaves_nothing_in_the_home_folder_and_no_copy_of_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, folder = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("last", "best"):
        (folder / f"{name}.safetensors").write_bytes(bytes(5_000_000))
        (folder / f"{name}.json").write_text("{}")
    tracker = start_tracker("offline", folder, "n", "g", "train-main", {})
    tracker.makes(checkpoint_artifact(folder, "g"))
    line = tracker.finish({})
    assert line.startswith("offline W&B run; send it with: wandb sync ")
    assert not list(home.rglob("*"))
    assert sum(path.stat().st_size for path in (folder / "wandb").rglob("*") if path.is_file()) < 1_000_000
    _, made = wandb_file.artifacts(run_file(folder))
    assert {name for files in made.values() for name in files} >= {"last.safetensors", "best.safetensors"}


def test_a_failure_after_the_start_is_told_once_and_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = start_tracker("offline", tmp_path, "n", "g", "j", {})

    def fail(*_: object, **__: object) -> None:
        raise ConnectionResetError("the connection was lost")

    monkeypatch.setattr(tracker._run, "log", fail)
    for epoch in (1, 2):
        tracker.log({"epoch": epoch})
    assert tracker.finish({}).startswith("the W&B run is not complete")
    (tmp_path / "next").mkdir()
    assert str(tmp_path / "next") in start_tracker("offline", tmp_path / "next", "n", "g", "j", {}).finish({})
    assert capsys.readouterr().err == (
        "Weights & Biases failed (the connection was lost); the work goes on without it\n"
    )


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
