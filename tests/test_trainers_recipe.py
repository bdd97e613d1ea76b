"""What the settings of a recipe do to a training."""

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL, Run
from trainers.fit import EpochSchedule, TensorBatches
from trainers.network import build_classifier
from trainers.recipe import Recipe
from trainers.training import rate_groups


def batches(value: float) -> TensorBatches:
    return TensorBatches(torch.full((6, 2), value), torch.zeros(6, dtype=torch.long).numpy(), 3)


def test_an_epoch_schedule_gives_each_epoch_its_batches_and_stays_at_the_last() -> None:
    schedule = EpochSchedule([batches(1), batches(1), batches(2)])
    seen = [{float(inputs[0, 0]) for inputs, _, _ in schedule.epoch(number)} for number in range(1, 5)]
    assert seen == [{1.0}, {1.0}, {2.0}, {2.0}]
    assert len(schedule) == 2


def test_rates_fall_from_the_head_towards_the_picture() -> None:
    network = build_classifier("efficientnet_lite0", 3, 0.0, pretrained=False)
    for parameter in network.backbone.stage_parameters(0):
        parameter.requires_grad_(False)
    groups = rate_groups(network, Recipe(lr=1e-2, backbone_lr=1e-3, layer_decay=0.5))
    rates = [group["lr"] for group in groups]
    assert rates[-1] == 1e-2  # the head
    assert rates[:-1] == pytest.approx([1e-3 * 0.5**depth for depth in range(len(network.backbone.stages) - 1)])
    trained = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert trained == sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_a_training_on_small_then_large_mixed_pictures_runs_and_is_recorded(
    run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    words = ("--unfreeze", "last-2", "--epochs", 3, "--early-size", 48, "--final-epochs", 1, "--mix", "both")
    done = run("train-main", tiny_data, "--out", tmp_path / "run", *SMALL, *words, "--layer-decay", 0.8)
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["early_size"], config["mix"], config["preprocess"]["size"]) == (48, "both", 64)
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert "validation_seed_score" in header
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--mix", "mixup"), "a frozen one sees each picture once; add --unfreeze all"),
        (("--early-size", 48), "a frozen one sees each picture once; add --unfreeze all"),
        (("--unfreeze", "last-1", "--early-size", 64), "at a side from 32 to below 64"),
        (("--unfreeze", "last-1", "--early-size", 48, "--epochs", 2), "before the last 2 of 2"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(
    run: Run, tiny_data: Path, tmp_path: Path, words: tuple[object, ...], sentence: str
) -> None:
    done = run("train-main", tiny_data, "--out", tmp_path / "run", *SMALL, *words)
    assert done.exit_code == 1
    assert sentence in done.output
    assert not (tmp_path / "run").exists()


def test_heads_on_a_shared_trunk_refuse_what_they_would_ignore(
    run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path
) -> None:
    done = run("train-sub", tiny_data, "--main", tiny_main, "--out", tmp_path / "s", *SMALL, "--mix", "both")
    assert done.exit_code == 1
    assert "a frozen one sees each picture once" in done.output


def test_submodels_of_a_fine_tuned_main_model_are_trained_with_hard_pictures_of_a_clean_one(
    run: Run, tiny_data: Path, tmp_path: Path
) -> None:
    words = ("--unfreeze", "last-1", "--epochs", 1)
    assert run("train-main", tiny_data, "--out", tmp_path / "main", *SMALL, *words).exit_code == 0
    words = ("--main", tmp_path / "main", "--out", tmp_path / "subs", *SMALL, "--negatives", "hard", "--epochs", 2)
    done = run("train-sub", tiny_data, *words, "--flip")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "subs" / "submodels.json").read_text())["flip"] is True
    out = tmp_path / "models" / "flipped"
    words = ("--main", tmp_path / "main", "--subs", tmp_path / "subs", "--data", tiny_data, "--out", out)
    exported = run("export", *words)
    assert exported.exit_code == 0, exported.output
    manifest = json.loads((out / "bundle.json").read_text())
    assert manifest["second_stage_cost"] == pytest.approx(2, rel=0.02)  # the same backbone, twice
    assert any("--flip" in line for line in manifest["provenance"]["commands"])
