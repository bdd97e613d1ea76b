"""The standard protocol."""

import json
from pathlib import Path

import numpy as np
import pytest

from export.commands.benchmark import (
    BenchmarkPlan,
    Pool,
    SplitResult,
    paired_difference,
    read_pool,
    run_benchmark,
    split_indices,
)
from export.fitting.selection import Terms
from tests.conftest import CLASSES, Run, write_class_folders
from trainers.networks.config import NetworkConfig


def test_a_split_takes_so_many_of_each_class_and_keeps_copies_on_one_side() -> None:
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(4), 60)
    groups = np.arange(240)
    for first in (0, 10, 70, 130):  # pairs, and one group of three
        groups[first + 1] = groups[first]
    groups[12] = groups[10]
    trained, tested = split_indices(targets, groups, 20, seed=int(rng.integers(99)))
    assert np.bincount(targets[trained]).tolist() == [20, 20, 20, 20]
    assert not set(groups[trained]) & set(groups[tested])
    assert len(trained) + len(tested) == 240


def test_seeds_give_other_splits_and_the_same_seed_the_same() -> None:
    targets, groups = np.repeat(np.arange(3), 40), np.arange(120)
    first, again, other = (split_indices(targets, groups, 10, seed)[0].tolist() for seed in (1, 1, 2))
    assert first == again != other


def results(cascade: list[int], main: list[int]) -> list[SplitResult]:
    return [
        SplitResult(n, 1500, 2700, m, m, m, c, 0, 0.2, 1.5) for n, (c, m) in enumerate(zip(cascade, main, strict=True))
    ]


def test_the_interval_is_the_corrected_one() -> None:
    mean, interval = paired_difference(results([90, 92, 94], [100, 100, 100]), "main")
    assert interval
    low, high = interval
    assert mean == -8
    assert high - mean == pytest.approx(4.303 * np.sqrt((1 / 3 + 2700 / 1500) * 4), rel=1e-3)
    assert mean - low == pytest.approx(high - mean)


def test_one_split_has_no_interval() -> None:
    assert paired_difference(results([90], [100]), "main") == (-10, None)


def pool(skill: float) -> Pool:
    """Return features in which the second stage sees the class with the given strength."""
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(4), 200)
    truth = np.eye(4)[targets]
    main = np.hstack([1.5 * truth, np.zeros((800, 8))]) + rng.normal(size=(800, 12))
    second = np.hstack([skill * truth, np.zeros((800, 8))]) + rng.normal(size=(800, 12))
    return Pool(("a", "b", "c", "d"), main, second, targets, np.arange(800), Terms(4, 3.0, 2.0, 0.02, 0))


def test_a_second_stage_that_sees_more_saves_mistakes_within_the_budget() -> None:
    plan = BenchmarkPlan(
        Path("none"), NetworkConfig("efficientnet_lite0"), NetworkConfig("efficientnet_lite2"), splits=3, per_class=80
    )
    outcome = list(run_benchmark(pool(3.0), plan))
    assert all(result.cascade < 0.8 * result.main for result in outcome)
    assert np.mean([result.cost for result in outcome]) <= plan.budget + 0.3
    assert {result.trained_on for result in outcome} == {320}


def test_a_blind_second_stage_does_no_harm() -> None:
    plan = BenchmarkPlan(
        Path("none"), NetworkConfig("efficientnet_lite0"), NetworkConfig("efficientnet_lite2"), splits=2, per_class=80
    )
    for result in run_benchmark(pool(0.0), plan):
        assert result.cascade <= result.main + 8


def test_the_command_reports_every_split_on_a_data_set_in_any_shape(run: Run, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "training", dict.fromkeys(CLASSES, 9), 0)
    write_class_folders(tmp_path / "validation", dict.fromkeys(CLASSES, 7), 100)
    options = ("--splits", 2, "--per-class", 10, "--second-backbone", "efficientnet_lite0", "--second-size", 64)
    done = run("benchmark-cascade", tmp_path, *options, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["backbones"] == "frozen"
    assert [split["trained_on"] for split in report["splits"]] == [30, 30]
    assert all(split["tested_on"] == 18 for split in report["splits"])
    as_text = run("benchmark-cascade", tmp_path, *options)
    assert "cascade less main model alone" in as_text.output


def test_submodels_may_read_the_main_models_features_too(tmp_path: Path) -> None:
    write_class_folders(tmp_path, dict.fromkeys(CLASSES, 3), 0)
    stages = NetworkConfig("efficientnet_lite0", size=64), NetworkConfig("efficientnet_lite0", size=96)
    trunk, both = (
        read_pool(BenchmarkPlan(tmp_path, *stages, per_class=2, features=read)) for read in ("trunk", "both")
    )
    assert np.array_equal(both.second, np.hstack([trunk.second, trunk.main]))
    assert both.terms == trunk.terms


@pytest.mark.parametrize(
    ("counts", "options", "sentence"),
    [
        (
            dict.fromkeys(CLASSES, 10),
            (),
            "dots has 10 pictures, expected more than the 100 per class that are",
        ),
        ({"dots": 12}, ("--per-class", 10), "has one class, dots; expected two or more"),
        (dict.fromkeys(CLASSES, 12), ("--per-class", 10, "--budget", 0.9), "every picture passes the main model"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Run, tmp_path: Path, counts: dict[str, int], options: tuple[object, ...], sentence: str
) -> None:
    write_class_folders(tmp_path, counts, 0)
    done = run("benchmark-cascade", tmp_path, *options)
    assert done.exit_code == 1
    assert sentence in done.output
