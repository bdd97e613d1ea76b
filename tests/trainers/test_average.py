"""Averages of runs, and runs that start from another."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from cascade.bundle.reading import read_manifest
from cascade.errors import CanonistiaError
from tests.conftest import SMALL, Run, write_data_set
from trainers.networks.averaging import averaged
from trainers.runs.folder import load_run


def network(seed: int, width: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def test_weights_are_the_weighted_mean_and_batch_norms_know_the_new_features() -> None:
    first, second = network(0), network(1)
    expected = 0.25 * first[0].weight.detach() + 0.75 * second[0].weight.detach()
    pictures = torch.randn(64, 3, generator=torch.Generator().manual_seed(2))
    averaged([first, second], (0.25, 0.75), [pictures])
    assert torch.allclose(first[0].weight, expected)
    features = first[0](pictures)
    assert torch.allclose(first[1].running_mean, features.mean(0), atol=1e-5)
    assert torch.allclose(first[1].running_var, features.var(0), atol=1e-5)
    assert not first.training


def test_networks_of_two_architectures_are_refused() -> None:
    with pytest.raises(CanonistiaError, match="different architectures"):
        averaged([network(0), network(1, width=5)], (0.5, 0.5), [torch.zeros(4, 3)])


@pytest.fixture(scope="module")
def tuned(tiny_data: Path, tiny_main: Path) -> Path:
    """Return a fine-tuned run that started from the tiny main model."""
    from tests.conftest import run_command

    out = tiny_main.with_name("tuned")
    words = ("--start", tiny_main, *SMALL, "--epochs", 1, "--unfreeze", "all", "--backbone-lr", 1e-5, "--lr", 1e-5)
    result = run_command("train-main", tiny_data, "--out", out, *words, "--no-report", "--ema", 0)
    assert result.exit_code == 0, result.output
    return out


def test_a_training_starts_from_the_weights_of_a_run(tuned: Path, tiny_main: Path) -> None:
    before, after = load_run(tiny_main).network.head.weight, load_run(tuned).network.head.weight
    assert 0 < (before - after).abs().max() < 1e-3
    assert json.loads((tuned / "config.json").read_text())["start"] == str(tiny_main)


def test_runs_are_averaged_into_a_run_and_the_line_between_them_is_drawn(
    run: Run, tuned: Path, tiny_main: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = ("average", tiny_main, tuned, "--data", tiny_data, "--tracker", "none")
    drawn = ("--line", tmp_path / "line.png", "--elsewhere", tiny_data / "validation", "--points", 3)
    result = run(*words, "--out", tmp_path / "mean", "--share", 1, "--share", 3, *drawn)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [row.split("  ")[0] for row in lines] == ["share 0", "share 0.5", "share 1"]
    assert all(
        row.split("  ")[1].removeprefix("home ") == row.split("  ")[2].removeprefix("elsewhere ") for row in lines
    )
    assert (tmp_path / "line.png").stat().st_size > 5000
    mean, parts = (load_run(tmp_path / "mean"), [load_run(one) for one in (tiny_main, tuned)])
    weights = [one.network.head.weight for one in parts]
    assert torch.allclose(mean.network.head.weight, 0.25 * weights[0] + 0.75 * weights[1])
    assert json.loads((tmp_path / "mean" / "config.json").read_text())["shares"] == [0.25, 0.75]
    assert (tmp_path / "mean" / "summary.json").exists()


def test_an_average_is_exported_as_any_other_run_and_the_bundle_tells_how_it_was_made(
    run: Run, tuned: Path, tiny_main: Path, tiny_data: Path, tmp_path: Path
) -> None:
    none = ("--tracker", "none")
    words = ("average", tiny_main, tuned, "--data", tiny_data, *none, "--share", 1, "--share", 1)
    assert run(*words, "--out", tmp_path / "mean").exit_code == 0
    subs = ("train-sub", tiny_data, "--main", tmp_path / "mean", "--out", tmp_path / "subs", "--features", "both")
    done = run(*subs, *SMALL, "--epochs", 1, "--negatives", "hard")
    assert done.exit_code == 0, done.output
    exported = ("--main", tmp_path / "mean", "--subs", tmp_path / "subs", "--data", tiny_data)
    done = run("export", *exported, "--out", tmp_path / "bundle")
    assert done.exit_code == 0, done.output
    commands = read_manifest(tmp_path / "bundle")[0].provenance.commands
    assert [line.split()[1] for line in commands] == ["train-main", "train-main", "average", "train-sub", "export"]
    assert commands[0].endswith("--out main")
    assert "--start" not in commands[0]
    assert commands[1].endswith("--start main --out tuned")
    assert commands[2] == "canonistia average main tuned --share 0.5 --share 0.5 --data data --out mean"


def test_what_cannot_be_averaged_is_said(
    run: Run, tuned: Path, tiny_main: Path, tiny_subs: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = ("--data", tiny_data, "--tracker", "none")
    for words, said in (
        ((tiny_main, *data, "--out", tmp_path / "a"), "an average is of two runs or more"),
        ((tiny_main, tuned, *data, "--out", tmp_path / "a", "--share", 1), "1 shares for 2 runs"),
        ((tiny_main, tuned, *data, "--out", tmp_path / "a", "--share", 0, "--share", 0), "not all of them 0"),
        ((tiny_main, tuned, *data), "give --out"),
        ((tiny_main, tuned, *data, "--line", tmp_path / "l.png"), "belong together"),
        ((tiny_main, tiny_data, *data, "--out", tmp_path / "a"), "holds no finished training"),
    ):
        result = run("average", *words)
        assert result.exit_code in (1, 2)
        assert said in result.output
    other = write_data_set(tmp_path / "other", 4, 2)
    result = run("average", tiny_main, tuned, "--data", other, "--out", tmp_path / "a")
    assert "has changed since the run" in result.output
    assert not (tmp_path / "a").exists()


def test_a_training_of_another_backbone_cannot_start_from_a_run(
    run: Run, tiny_main: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = ("--backbone", "timm/test_resnet", "--no-pretrained", "--tracker", "none", "--size", 64)
    result = run("train-main", tiny_data, "--out", tmp_path / "new", "--start", tiny_main, *words)
    assert result.exit_code == 1
    assert "starts from a run of its own backbone" in result.output
    assert not (tmp_path / "new").exists()
