"""What the settings of a recipe do to a training."""

import json
from pathlib import Path

import pytest
import torch

from cascade.errors import CanonistiaError
from tests.conftest import SMALL, Run
from trainers.commands.find_lr import suggestion
from trainers.loop.batch_size import largest_batch
from trainers.loop.fit import EpochSchedule, TensorBatches
from trainers.loop.training import rate_groups
from trainers.networks.classifier import build_classifier
from trainers.networks.config import NetworkConfig
from trainers.networks.unfreeze import unfreeze_plan
from trainers.recipe import Recipe
from trainers.runs.folder import load_run


def batches(value: float) -> TensorBatches:
    return TensorBatches(torch.full((6, 2), value), torch.zeros(6, dtype=torch.long).numpy(), 3)


def test_an_epoch_schedule_gives_each_epoch_its_batches_and_stays_at_the_last() -> None:
    schedule = EpochSchedule([batches(1), batches(1), batches(2)])
    seen = [{float(inputs[0, 0]) for inputs, _, _ in schedule.epoch(number)} for number in range(1, 5)]
    assert seen == [{1.0}, {1.0}, {2.0}, {2.0}]
    assert len(schedule) == 2


def test_rates_fall_from_the_head_towards_the_picture() -> None:
    network = build_classifier(NetworkConfig("efficientnet_lite0", pretrained=False), 3)
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
    arguments = ("--unfreeze", "last-2", "--epochs", 3, "--early-size", 48, "--final-epochs", 1, "--mix", "both")
    done = run("train-main", tiny_data, "--out", tmp_path / "run", *SMALL, *arguments, "--layer-decay", 0.8)
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["early_size"], config["mix"], config["preprocess"]["size"]) == (48, "both", 64)
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert "validation_seed_score" in header
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--mix", "mixup"), "a frozen one sees each picture once; add --unfreeze all"),
        (("--early-size", 48), "a frozen one sees each picture once; add --unfreeze all"),
        (("--unfreeze", "last-1", "--early-size", 64), "at an image size from 32 to below 64"),
        (("--unfreeze", "last-1", "--early-size", 48, "--epochs", 2), "before the last 2 of 2"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(
    run: Run, tiny_data: Path, tmp_path: Path, arguments: tuple[object, ...], sentence: str
) -> None:
    done = run("train-main", tiny_data, "--out", tmp_path / "run", *SMALL, *arguments)
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
    arguments = ("--unfreeze", "last-1", "--epochs", 1)
    assert run("train-main", tiny_data, "--out", tmp_path / "main", *SMALL, *arguments).exit_code == 0
    arguments = ("--main", tmp_path / "main", "--out", tmp_path / "subs", *SMALL, "--negatives", "hard", "--epochs", 2)
    done = run("train-sub", tiny_data, *arguments, "--flip")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "subs" / "submodels.json").read_text())["flip"] is True
    out = tmp_path / "models" / "flipped"
    arguments = ("--main", tmp_path / "main", "--subs", tmp_path / "subs", "--data", tiny_data, "--out", out)
    exported = run("export", *arguments)
    assert exported.exit_code == 0, exported.output
    manifest = json.loads((out / "bundle.json").read_text())
    assert manifest["second_stage_cost"] == pytest.approx(2, rel=0.02)  # the same backbone, twice
    assert any("--flip" in line for line in manifest["provenance"]["commands"])


VIT = ("--backbone", "timm/test_vit", "--no-pretrained", "--size", 32, "--tracker", "none", "--no-report")


def test_a_schedule_thaws_stages_during_training() -> None:
    plan = unfreeze_plan("head,last-2@2,all@4", 9, epochs=5)
    assert [plan.frozen(epoch) for epoch in range(1, 6)] == [9, 7, 7, 0, 0]
    network = build_classifier(NetworkConfig("efficientnet_lite0", pretrained=False), 3)
    for epoch, thawed in ((1, 0), (2, 2), (4, 9)):
        plan.apply(network, epoch)
        stages = range(len(network.backbone.stages))
        trained = [all(p.requires_grad for p in network.backbone.stage_parameters(stage)) for stage in stages]
        assert trained == [False] * (9 - thawed) + [True] * thawed
        norms = [module for module in network.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert norms[-1].training == (thawed > 0)
        assert norms[0].training == (thawed == 9)


@pytest.mark.parametrize("text", ["head,all", "head@2", "head,all@9", "head,last-1@3,all@2", "head,all@x"])
def test_a_schedule_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(CanonistiaError, match="in a schedule the epochs rise, from 1 for the first part to 5 at most"):
        unfreeze_plan(text, 9, epochs=5)


def test_a_batch_in_parts_gives_the_gradients_of_the_whole(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    arguments = (*VIT, "--unfreeze", "all", "--epochs", 1, "--dropout", 0, "--batch-size", 8, "--optimizer", "sgd")
    for name, parts in (("whole", 1), ("parts", 3)):
        done = run("train-main", tiny_data, "--out", tmp_path / name, *arguments, "--accumulate", parts)
        assert done.exit_code == 0, done.output
    whole, parts = (load_run(tmp_path / name).network.state_dict() for name in ("whole", "parts"))
    assert all(torch.allclose(whole[name], parts[name], atol=1e-5) for name in whole)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_fewer_bits_train_too(run: Run, tiny_data: Path, tmp_path: Path, precision: str) -> None:
    arguments = (*VIT, "--unfreeze", "all", "--epochs", 1, "--precision", precision)
    done = run("train-main", tiny_data, "--out", tmp_path / "run", *arguments)
    assert done.exit_code == 0, done.output


def test_find_lr_suggests_a_rate_and_draws_it(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    arguments = ("--steps", 40, "--plot", tmp_path / "lr.png", *VIT[:-1], "--batch-size", 8)
    done = run("find-lr", tiny_data, *arguments, "--unfreeze", "all")
    assert done.exit_code == 0, done.output
    _, lr, _, backbone = done.stdout.split()
    assert 1e-6 < float(lr) < 1
    assert float(backbone) == pytest.approx(float(lr) / 5, rel=0.3)  # the recipe's ratio, in round numbers
    assert (tmp_path / "lr.png").stat().st_size > 5000


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    rates = [10.0**power for power in range(-6, 1)]
    assert suggestion(rates, [3.0, 3.0, 2.9, 1.5, 0.5, 0.4, 9.0]) == pytest.approx(1e-3)
    with pytest.raises(CanonistiaError, match="the loss never fell"):
        suggestion(rates, [1.0, 2, 3, 4, 5, 6, 7])


@pytest.mark.parametrize(("room", "expected"), [(8, 8), (100, 72), (5000, 3272)])
def test_the_largest_batch_that_fits_is_found_with_room_to_spare(room: int, expected: int) -> None:
    assert largest_batch(lambda count: count <= room) == expected


def test_a_batch_is_fitted_to_a_gpu_alone(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    done = run("train-main", tiny_data, "--out", tmp_path / "run", *VIT, "--batch-size", 0, "--device", "cpu")
    assert done.exit_code == 1
    assert "fits the batch to a GPU's memory, and the device is cpu; give a number" in done.output
    with pytest.raises(CanonistiaError, match="does not hold a batch of 8"):
        largest_batch(lambda count: False)
