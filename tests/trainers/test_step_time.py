"""What a step costs is measured on this machine: the precision that auto takes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import trainers.loop.step_time
from trainers.commands.train_main import train_main
from trainers.loop.step_time import chosen_precision, head_step_seconds, step_seconds
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import MAIN_DEFAULTS, Recipe

NETWORK = NetworkConfig("timm/test_vit", size=32, pretrained=False)
RECIPE = replace(MAIN_DEFAULTS, epochs=1, batch_size=4, unfreeze="last-1", tracker="none")


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the precision that the machine seems to be faster in, which the test sets."""
    chosen = ["bf16"]

    def seconds(network: Classifier, size: int, recipe: Recipe, device: str, count: int) -> float:
        return 1.0 if recipe.precision == chosen[0] else 2.0

    monkeypatch.setattr(trainers.loop.step_time, "step_seconds", seconds)
    monkeypatch.setattr(trainers.loop.step_time, "resolve_precision", lambda precision, device: "bf16")
    return chosen


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_auto_precision_is_the_faster_one_and_a_resumed_run_keeps_it(
    precision: str, faster: list[str], few_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faster[0] = precision
    train_main(few_data, tmp_path / "run", NETWORK, RECIPE, report=False)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["precision"] == precision
    faster[0] = "fp32" if precision == "bf16" else "bf16"  # another machine, or another day
    train_main(few_data, tmp_path / "run", NETWORK, RECIPE, resume=True, report=False)
    assert "nothing to resume" in capsys.readouterr().err


def test_nothing_is_measured_for_a_frozen_network_or_a_given_precision(faster: list[str]) -> None:
    network = build_classifier(NETWORK, 3)
    assert chosen_precision(replace(RECIPE, unfreeze="head"), network, 32, "cpu") == "auto"
    assert chosen_precision(replace(RECIPE, precision="fp32"), network, 32, "cpu") == "fp32"


def test_timed_steps_leave_the_network_and_the_random_state_alone() -> None:
    network = build_classifier(NETWORK, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    assert step_seconds(network, 32, replace(RECIPE, unfreeze="all", mix="both"), "cpu", 2) > 0
    assert head_step_seconds(8, 3, RECIPE) > 0
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
