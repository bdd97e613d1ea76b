"""Pictures composed of two, and submodels that learn from them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.bundles.provenance import command_lines
from export.plan import ExportPlan
from tests.conftest import CLASSES, SMALL, Run, draw
from trainers.data.composed import UNSEEN_WAYS, WAYS, Pair, compose, draw_pairs
from trainers.features import made_pictures
from trainers.features.composed import SHARE, ComposedFeatures
from trainers.runs.folder import load_tensors, read_config
from trainers.runs.submodels import class_run

RED, BLUE = (Image.new("RGB", (80, 60), colour) for colour in ("red", "blue"))
EVERY_WAY = [*WAYS, *UNSEEN_WAYS]


@pytest.mark.parametrize("way", EVERY_WAY)
def test_both_pictures_have_a_fair_part_of_the_frame(way: str) -> None:
    shares = []
    for seed in range(40):
        frame = compose(way, RED, BLUE, np.random.default_rng(seed))
        assert (frame.size, frame.mode) == ((80, 60), "RGB")
        shares.append(np.asarray(frame)[..., 0].mean() / 255)
    assert 0.15 < min(shares) < 0.5 < max(shares) < 0.85  # either is the larger one now and then


@pytest.mark.parametrize("way", EVERY_WAY)
def test_the_same_seed_gives_the_same_picture_and_another_seed_another(way: str) -> None:
    pictures = [np.asarray(compose(way, draw("rows", 1), draw("sky", 2), np.random.default_rng(s))) for s in (3, 3, 4)]
    assert np.array_equal(pictures[0], pictures[1])
    assert pictures[0].shape != pictures[2].shape or not np.array_equal(pictures[0], pictures[2])


def test_grey_pictures_stay_grey_and_one_in_colour_makes_colour() -> None:
    grey, large = RED.convert("L"), Image.new("L", (300, 31))
    for way in EVERY_WAY:
        assert compose(way, grey, large, np.random.default_rng(0)).mode == "L"
        assert compose(way, grey, BLUE, np.random.default_rng(0)).mode == "RGB"
        assert compose(way, Image.new("L", (1, 1)), large, np.random.default_rng(1)).size in ((1, 1), (300, 31))


def test_pairs_are_of_different_classes_and_use_every_picture_and_way_alike() -> None:
    targets = np.repeat([0, 1, 2], [2, 5, 9])
    pairs = draw_pairs(targets, 40, tuple(WAYS), seed=1)
    assert pairs == draw_pairs(targets, 40, tuple(WAYS), seed=1) != draw_pairs(targets, 40, tuple(WAYS), seed=2)
    assert all(targets[pair.first] != targets[pair.second] for pair in pairs)
    firsts = np.bincount([pair.first for pair in pairs], minlength=16)
    assert set(firsts) == {2, 3}
    assert {way: sum(pair.way == way for pair in pairs) for way in WAYS} == dict.fromkeys(WAYS, 10)


def test_pictures_of_one_class_are_refused() -> None:
    with pytest.raises(ValueError, match="give pictures of two classes"):
        draw_pairs(np.zeros(4, dtype=int), 4, tuple(WAYS), seed=0)


def test_one_way_is_kept_from_training_and_fitting() -> None:
    assert set(WAYS) == {"side_by_side", "stacked", "inset", "horizon"}
    assert not set(WAYS) & set(UNSEEN_WAYS)


def test_a_composed_picture_is_an_example_of_both_its_classes_and_each_side_weighs_the_same() -> None:
    classes = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [2, 1]])
    composed = ComposedFeatures(torch.zeros(5, 4), classes, [Path(f"{number}.png") for number in range(5)])
    learned = composed.examples(1)
    assert learned.targets.tolist() == [1, 1, 0, 0, 1]
    assert learned.weights[learned.targets == 1].sum() == pytest.approx(2.5)
    assert learned.weights[learned.targets == 0].sum() == pytest.approx(2.5)
    assert len(learned.paths) == len(learned.sources) == 5
    assert np.isfinite(composed.examples(7).weights).all()  # a class that is in no pair


def test_heads_learn_from_composed_training_pictures_and_the_run_records_it(
    run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Pair] = []
    monkeypatch.setattr(made_pictures, "_composed", _noting(drawn))
    words = ("train-sub", tiny_data, "--main", tiny_main, *SMALL, "--epochs", 2, "--class", CLASSES[0])
    for name, more in (("with", ("--compose", "presence")), ("again", ("--compose", "presence")), ("without", ())):
        assert run(*words, "--out", tmp_path / name, *more).exit_code == 0
    training = len(list((tiny_data / "training").rglob("*.png")))
    assert len(drawn) == 2 * round(SHARE * training)
    assert {pair.way for pair in drawn} == set(WAYS)
    assert drawn[: len(drawn) // 2] == drawn[len(drawn) // 2 :]  # the same seed, the same pairs
    runs = {name: class_run(tmp_path / name, CLASSES[0]) for name in ("with", "again", "without")}
    assert {name: read_config(folder)["compose"] for name, folder in runs.items()} == {
        "with": "presence",
        "again": "presence",
        "without": "none",
    }
    weights = {name: _head(folder) for name, folder in runs.items()}
    assert torch.equal(weights["with"], weights["again"])
    assert not torch.equal(weights["with"], weights["without"])


def test_whole_networks_learn_from_no_composed_pictures(
    run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path
) -> None:
    words = (
        "train-sub",
        tiny_data,
        "--main",
        tiny_main,
        "--out",
        tmp_path / "s",
        "--own-networks",
        "--unfreeze",
        "all",
    )
    result = run(*words, "--compose", "presence")
    assert result.exit_code == 1
    assert "--compose presence is for heads on a shared trunk, and --own-networks have none" in result.output
    assert not (tmp_path / "s").exists()


def test_the_recorded_command_names_the_composition(light_main: Path, light_subs: Path, tmp_path: Path) -> None:
    subs = shutil.copytree(light_subs, tmp_path / "subs")
    plan = ExportPlan(light_main, subs, tmp_path / "data", tmp_path / "out")
    assert not any("--compose" in line for line in command_lines(plan))
    for path in subs.glob("classes/*/config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"compose": "presence"}))
    (line,) = [line for line in command_lines(plan) if "train-sub" in line]
    assert "--compose presence" in line


def _noting(drawn: list[Pair]) -> object:
    real = made_pictures._composed

    def composed(paths: list[Path], pair: Pair, least_size: int) -> Image.Image:
        drawn.append(pair)
        return real(paths, pair, least_size)

    return composed


def _head(folder: Path) -> torch.Tensor:
    head = torch.nn.Linear(1280, 1)
    load_tensors(head, folder / "last.safetensors")
    return head.weight
