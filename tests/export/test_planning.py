"""The plan of a fit: which pictures, and what fits the time."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from cascade.errors import CanonistiaError
from cascade.images.folders import LabelledPicture
from export.plan import ExportPlan
from export.planning.choice import RESERVE, Costs, Counts, choose
from export.planning.ladder import FEWEST_TO_TUNE, LADDER, MOST_EPOCHS
from export.planning.limits import limits
from export.planning.pictures import are_few, check_pictures
from export.planning.speed import Machine, NetworkSpeed, TuningSpeed
from tests.conftest import CLASSES, draw, write_class_folders, write_data_set
from trainers.data.dataset import DataSet
from trainers.features.kept_graphs import runtime_features
from trainers.networks.classifier import build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import Recipe

SCENES = Counts(training=2985, validation=1275, test=0, classes=15)


class SteadyMachine(Machine):
    """A machine whose speed is known: about that of two cores, or ``slow`` times slower."""

    def __init__(self, slow: float = 1.0) -> None:
        self.slow = slow

    def reading(self) -> float:
        return 0.002 * self.slow

    def head_step(self, features: int) -> float:
        return 0.0003 * self.slow

    def linear_pass(self, features: int) -> float:
        return 1e-6 * self.slow

    def writing(self, config: NetworkConfig | None) -> float:
        return (0.1 if config else 0.02) * self.slow

    def features(self, config: NetworkConfig) -> int:
        return 1280

    def speed(self, config: NetworkConfig) -> NetworkSpeed:
        pixels = ((config.size or 224) / 224) ** 2
        return NetworkSpeed(6 * self.slow, 0.006 * pixels * self.slow, 0.03 * pixels * self.slow)

    def tuning(self, config: NetworkConfig, recipe: Recipe) -> TuningSpeed:
        each = 0.08 if recipe.unfreeze == "all" else 0.04
        return TuningSpeed("fp32", each * ((config.size or 224) / 224) ** 2 * self.slow)


def at_once() -> float:
    return 10.0


def test_more_minutes_buy_a_better_plan_and_each_ends_in_time_with_its_reserve() -> None:
    found = []
    for minutes in (6, 10, 15, 20, 30, 45, 60, 90, 180):
        choice = choose(LADDER, SCENES, SteadyMachine(), minutes, at_once)
        assert at_once() + RESERVE * choice.costs.total(choice.epochs) <= minutes * 60
        found.append((LADDER.index(choice.costs.rung), choice.epochs if choice.costs.rung.tunes else 0))
    ranks = [rank for rank, _ in found]
    assert ranks == sorted(ranks)
    assert ranks[:2] == [0, 1]
    assert found[-1] == (len(LADDER) - 1, MOST_EPOCHS)


def test_a_slower_machine_gets_a_plan_that_it_can_keep() -> None:
    fast = choose(LADDER, SCENES, SteadyMachine(), 60, at_once)
    slow = choose(LADDER, SCENES, SteadyMachine(4), 60, at_once)
    assert LADDER.index(slow.costs.rung) < LADDER.index(fast.costs.rung)
    assert at_once() + RESERVE * slow.costs.total(slow.epochs) <= 3600


@pytest.mark.parametrize("slow", [1, 7])
def test_too_little_time_names_the_smallest_promise_and_that_one_can_be_kept(slow: float) -> None:
    machine = SteadyMachine(slow)
    with pytest.raises(
        CanonistiaError, match=r"--minutes 0.5 is too little .* smallest that works is --minutes \d+$"
    ) as e:
        choose(LADDER, SCENES, machine, 0.5, at_once)
    smallest = int(re.findall(r"\d+$", str(e.value))[0])
    assert not choose(LADDER, SCENES, machine, smallest, at_once).costs.rung.tunes


def test_what_more_time_would_buy_is_true() -> None:
    choice = choose(LADDER, SCENES, SteadyMachine(), 10, at_once)
    assert choice.more.startswith("the last stages of the main network fine-tuned, from about --minutes ")
    minutes = int(re.findall(r"\d+", choice.more)[-1])
    better = choose(LADDER, SCENES, SteadyMachine(), minutes, at_once).costs.rung
    assert better.name == "the last stages of the main network fine-tuned"
    assert choose(LADDER, SCENES, SteadyMachine(), 1000, at_once).more == "nothing"


def test_few_pictures_are_not_fine_tuned_on() -> None:
    few = Counts(FEWEST_TO_TUNE - 1, 200, 0, 15)
    choice = choose(LADDER, few, SteadyMachine(), 1000, at_once)
    assert choice.costs.rung.name == "frozen networks"
    assert choice.more == "nothing: networks are fine-tuned from 1,000 training pictures on"


def test_what_is_cross_fitted_is_not_fine_tuned_and_its_export_takes_longer() -> None:
    held_out = Counts(1600, 400, 0, 200)
    crossed = replace(held_out, cross_fit=True)
    assert choose(LADDER, held_out, SteadyMachine(), 1000, at_once).costs.rung.tunes
    choice = choose(LADDER, crossed, SteadyMachine(), 1000, at_once)
    assert choice.costs.rung.name == "frozen networks"
    assert choice.costs.export() > Costs(choice.costs.rung, held_out, SteadyMachine()).export()
    assert (held_out.judged, crossed.judged) == (400, 2000)


def test_what_pictures_cannot_promise_is_said_with_the_number_that_would() -> None:
    plan = ExportPlan(Path("main"), Path("subs"), Path("data"), Path("out"))
    wide, marks, accepted = limits(30, plan)
    assert wide.endswith("figures come from 30 pictures, so that 90% right means between 74% and 97%")
    assert marks.startswith(
        "a rate of 0.02 of false marks (--false-alarm-rate and --both-rate) cannot be promised: 0 of 30 pictures may "
        "be marked, and of new ones up to 9.5%"
    )
    needed = int(re.findall(r"it takes (\d+) pictures", marks)[0])
    assert not any("false marks" in one for one in limits(needed, plan))
    assert any("false marks" in one for one in limits(needed - 50, plan))
    assert "299 pictures without a mistake; at most 90.5% can be, if all 30 are right" in accepted
    assert list(limits(5000, plan)) == []


def test_rates_of_their_own_are_each_said() -> None:
    plan = ExportPlan(Path("main"), Path("subs"), Path("data"), Path("out"), both_rate=0.01)
    said = [one for one in limits(200, plan) if "false marks" in one]
    assert [one.partition(") ")[0] for one in said] == [
        "a rate of 0.01 of false marks (--both-rate", "a rate of 0.02 of false marks (--false-alarm-rate"
    ]  # fmt: skip


def data_set(training: int, validation: int, classes: int) -> DataSet:
    """Return a data set of so many pictures of each class."""
    names = [f"class {number}" for number in range(classes)]
    parts = [
        tuple(LabelledPicture(Path(str(number)), name, split) for name in names for number in range(count))
        for split, count in (("training", training), ("validation", validation))
    ]
    return DataSet(tuple(names), *parts, (), "", 0)


@pytest.mark.parametrize(
    ("data", "few"),
    [
        (data_set(8, 3, 15), True),
        (data_set(66, 16, 15), True),  # 990 for training
        (data_set(67, 16, 15), False),
        (data_set(10, 4, 200), True),  # 2,000 for training, but 14 of each class
        (data_set(12, 3, 200), False),
    ],
)
def test_pictures_are_few_while_nothing_is_fine_tuned_on_them_or_a_class_has_few(data: DataSet, few: bool) -> None:
    assert are_few(data) == few


def test_few_pictures_are_cross_fitted_unless_they_bring_a_validation_split(unsplit: Path, tmp_path: Path) -> None:
    checked = check_pictures(unsplit, None, seed=0)
    assert checked.cross_fit
    assert "29 pictures of 3 classes, too few to hold any out" in checked.remarks[0]
    assert not check_pictures(write_data_set(tmp_path / "split", 5, 4), None, seed=0).cross_fit


def test_a_second_fit_measures_the_writing_of_a_graph_anew_and_keeps_it(
    tiny_data: Path, tmp_path: Path, written_graphs: list[str]
) -> None:
    network = NetworkConfig("timm/test_resnet", size=32, pretrained=False)
    pictures = sorted((tiny_data / "training").rglob("*.png"))
    for number in (1, 2):
        torch.manual_seed(0)
        Machine(pictures, 3, tmp_path).speed(network)
        assert len(written_graphs) == number
    torch.manual_seed(0)
    runtime_features(build_classifier(network, 3), 32)
    assert len(written_graphs) == 2


def test_the_machine_is_measured_once(tiny_data: Path, tmp_path: Path) -> None:
    machine = Machine(sorted((tiny_data / "training").rglob("*.png")), 3, tmp_path)
    network = NetworkConfig("timm/test_resnet", size=32, pretrained=False)
    assert 0 < machine.reading() < 10
    for measured in (
        machine.reading,
        lambda: machine.writing(network),
        lambda: machine.writing(None),
        lambda: machine.head_step(8),
        lambda: machine.linear_pass(8),
    ):
        assert measured() == measured()
    speed = machine.speed(network)
    assert speed is machine.speed(network)
    assert min(speed.export, speed.runtime, speed.pytorch) > 0
    tuning = machine.tuning(network, Recipe(unfreeze="all"))
    assert tuning.precision in ("fp32", "bf16")
    assert math.isfinite(tuning.seconds)
    assert tuning.seconds > 0
    assert not list(tmp_path.iterdir())


@pytest.fixture
def unsplit(tmp_path: Path) -> Path:
    write_class_folders(tmp_path / "photos", dict.fromkeys(CLASSES, 10), 0)
    return tmp_path / "photos"


def test_an_unsplit_data_set_gets_validation_pictures_enough_to_export(unsplit: Path) -> None:
    checked = check_pictures(unsplit, None, seed=0)
    assert checked.data.counts("training") == {**dict.fromkeys(CLASSES, 7), "dots": 6}  # two of the dots look alike
    assert checked.data.counts("validation") == dict.fromkeys(CLASSES, 3)
    assert checked == check_pictures(unsplit, None, seed=0)


def test_copies_unreadable_files_and_doubtful_labels_are_left_out_and_said(tmp_path: Path) -> None:
    photos = write_data_set(tmp_path / "photos", 10, 8)
    (photos / "training/sky/copy.png").write_bytes((photos / "validation/sky/500.png").read_bytes())
    (photos / "training/rows/000.png").write_bytes(b"no picture")
    (photos / "training/dots/both.png").write_bytes((photos / "training/sky/003.png").read_bytes())
    checked = check_pictures(photos, None, seed=0)
    left_out = {str(p.path.relative_to(photos)): reason for p, _, reason in checked.cleaned.left_out}
    assert left_out.pop("training/rows/000.png").startswith("unreadable: ")
    assert left_out == {
        "training/sky/copy.png": "copy of validation/sky/500.png",
        "training/dots/008.png": "copy of training/dots/006.png",  # drawn so
        "training/dots/both.png": "two labels: dots, sky",
        "training/sky/003.png": "two labels: dots, sky",
    }
    said = checked.remarks[1].removeprefix("left out: ").removesuffix("; data.left_out.csv lists them")
    assert sorted(said.split(", ")) == ["1 unreadable", "2 duplicate", "2 with two labels"]


def test_looks_that_do_not_tell_classes_apart_do_not_make_copies(tmp_path: Path) -> None:
    for number, label in enumerate(("dark", "grey", "light")):
        for shade in range(8):
            path = tmp_path / "photos" / label / f"{shade}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (80 * number + shade,) * 3).save(path)
    checked = check_pictures(tmp_path / "photos", None, seed=0)
    assert checked.cleaned.left_out == ()
    assert "only files of the same bytes count as copies" in checked.remarks[-1]


def test_no_copy_of_a_test_picture_is_trained_on(unsplit: Path, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "test", {"sky": 2, "rows": 1}, 900)
    draw("sky", 5).resize((80, 66)).save(tmp_path / "test" / "sky" / "same.png")
    checked = check_pictures(unsplit, tmp_path / "test", seed=0)
    left_out = {f"{picture.label} {picture.path.name}" for picture, _, _ in checked.cleaned.left_out}
    assert left_out == {"sky 005.png", "dots 008.png"}  # two of the dots look alike
    assert {picture.path.parent.parent.name for picture in checked.test} == {"test"}
    assert len(checked.test) == 4
    assert not checked.data.test


def one_of_a_class(photos: Path, test: Path) -> None:
    write_class_folders(photos, {"moon": 1}, 0)


def unknown_in_test(photos: Path, test: Path) -> None:
    write_class_folders(test, {"moon": 1}, 0)


def broken_in_test(photos: Path, test: Path) -> None:
    (test / "sky" / "900.png").write_bytes(b"no picture")


def trained_in_test(photos: Path, test: Path) -> None:
    for path in photos.rglob("*.png"):
        (test / path.relative_to(photos)).parent.mkdir(exist_ok=True)
        (test / path.relative_to(photos)).write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            one_of_a_class,
            r"^\S+ has too few pictures of moon \(1\); copies count once; expected at least 5 of",
        ),
        (unknown_in_test, "has classes that the model does not know: moon; it knows dots, rows, sky"),
        (broken_in_test, r"^1 picture cannot be read: .*900.png"),
        (trained_in_test, "^every picture of .* is also in .*; test on pictures that are not trained on"),
    ],
)
def test_bad_pictures_are_one_sentence(
    unsplit: Path, tmp_path: Path, spoil: Callable[[Path, Path], None], message: str
) -> None:
    write_class_folders(tmp_path / "test", {"sky": 2}, 900)
    spoil(unsplit, tmp_path / "test")
    with pytest.raises(CanonistiaError, match=message):
        check_pictures(unsplit, tmp_path / "test", seed=0)


def test_a_validation_split_that_is_too_small_is_said_before_training(tmp_path: Path) -> None:
    photos = write_data_set(tmp_path / "photos", 10, 2)
    with pytest.raises(CanonistiaError, match="export needs 3 validation pictures of every class"):
        check_pictures(photos, None, seed=0)
