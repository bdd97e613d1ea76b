"""Data sets: splits, and what makes one unusable."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cascade.errors import CanonistiaError, PictureError
from cascade.images.preprocess import PreprocessSpec
from cascade.images.unreadable import unreadable
from tests.conftest import CLASSES, Run, write_class_folders, write_data_set
from trainers.data.dataset import load_data_set
from trainers.data.loader import pictures_in_order
from trainers.data.sampling import by_source


def test_an_unsplit_tree_is_split_by_class_and_the_same_picture_stays_on_one_side(tmp_path: Path) -> None:
    write_class_folders(tmp_path, dict.fromkeys(CLASSES, 20), 0)
    for label in CLASSES:
        for number in range(10):  # half of the pictures twice
            shutil.copy(tmp_path / label / f"{number:03d}.png", tmp_path / label / f"copy{number}.png")
    data = load_data_set(tmp_path, seed=3)
    assert len(data.training) + len(data.validation) == 90
    for label in CLASSES:
        held_out = sum(picture.label == label for picture in data.validation)
        assert 3 <= held_out <= 9  # a fifth of 30, in whole groups
    contents = [{picture.path.read_bytes() for picture in split} for split in (data.training, data.validation)]
    assert not contents[0] & contents[1]


def test_the_split_follows_from_the_seed(tmp_path: Path) -> None:
    write_class_folders(tmp_path, dict.fromkeys(CLASSES, 10), 0)
    first, again, other = (load_data_set(tmp_path, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.validation != other.validation


def test_training_and_test_alone_give_a_validation_split_and_keep_the_test_split(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "Training", dict.fromkeys(CLASSES, 10), 0)
    write_class_folders(tmp_path / "Testing", dict.fromkeys(CLASSES, 2), 500)
    data = load_data_set(tmp_path, seed=0)
    assert (len(data.training), len(data.validation), len(data.test)) == (24, 6, 6)
    assert {picture.path.parent.parent.name for picture in data.test} == {"Testing"}
    assert {picture.path.parent.parent.name for picture in data.validation} == {"Training"}


def test_the_fingerprint_changes_with_a_label_and_not_with_the_place(tmp_path: Path) -> None:
    one = write_data_set(tmp_path / "one")
    two = Path(shutil.copytree(one, tmp_path / "two"))
    assert load_data_set(one, 0).fingerprint == load_data_set(two, 0).fingerprint
    (two / "training/sky/000.png").rename(two / "training/rows/moved.png")
    assert load_data_set(one, 0).fingerprint != load_data_set(two, 0).fingerprint


def only_one_class(folder: Path) -> None:
    for split in ("training", "validation"):
        for label in ("rows", "sky"):
            shutil.rmtree(folder / split / label)


FAULTS = {
    "one class": (only_one_class, "has one class, dots; expected two or more"),
    "no training": (lambda f: shutil.rmtree(f / "training"), "has no training split"),
    "class not validated": (lambda f: shutil.rmtree(f / "validation/sky"), "validation split has no picture of sky"),
    "class unknown to training": (lambda f: shutil.rmtree(f / "training/sky"), r"classes that training lacks \(sky\)"),
    "empty": (lambda f: (shutil.rmtree(f), f.mkdir()), "one folder per class"),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
def test_an_unusable_data_set_is_one_sentence_and_leaves_no_run(run: Run, tmp_path: Path, fault: str) -> None:
    folder = write_data_set(tmp_path / "data", training=2, validation=2)
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(CanonistiaError, match=message):
        load_data_set(folder, 0)
    result = run("train-main", folder, "--out", tmp_path / "run", "--tracker", "none")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert not (tmp_path / "run").exists()


def test_a_class_too_small_to_split_is_named(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"dots": 6, "sky": 1}, 0)
    with pytest.raises(CanonistiaError, match=r"class sky has 1 picture .*expected at least 2"):
        load_data_set(tmp_path, 0)


def test_copies_of_one_picture_cannot_be_split(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"dots": 6, "sky": 1}, 0)
    for number in range(5):
        shutil.copy(tmp_path / "sky/000.png", tmp_path / f"sky/copy{number}.png")
    with pytest.raises(CanonistiaError, match=r"class sky has 1 picture \(copies count once\)"):
        load_data_set(tmp_path, 0)


def test_two_classes_of_four_pictures_are_split(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"dots": 4, "rows": 4}, 0)
    data = load_data_set(tmp_path, 0)
    assert {picture.label for picture in data.validation} == {"dots", "rows"}


def test_validation_pictures_seen_in_training_are_counted(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", training=3, validation=2)
    assert load_data_set(folder, 0).seen_in_training == 0
    shutil.copy(folder / "training/sky/000.png", folder / "validation/sky/copy.png")
    assert load_data_set(folder, 0).seen_in_training == 1


def test_a_link_to_nothing_is_one_sentence(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", training=2, validation=2)
    (folder / "training/sky/gone.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(CanonistiaError, match=r"gone\.png cannot be read"):
        load_data_set(folder, 0)


@pytest.mark.parametrize("command", ["train-main", "find-lr"])
def test_all_pictures_that_cannot_be_read_are_named_before_a_training(run: Run, tmp_path: Path, command: str) -> None:
    folder = write_data_set(tmp_path / "data", training=2, validation=2)
    bad = [folder / "training/sky/bad.jpg", folder / "training/dots/worse.png", folder / "validation/sky/worst.png"]
    for path in bad:
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    options = ("--plot", tmp_path / "rates.png") if command == "find-lr" else ("--out", tmp_path / "run")
    result = run(command, folder, *options, "--size", 64, "--tracker", "none")
    assert result.exit_code == 1
    assert "3 pictures cannot be read" in result.output
    assert all(str(path) in result.output for path in bad)
    assert "check-data DATA --fix" in result.output
    assert not (tmp_path / "run").exists()


def test_an_error_names_twenty_pictures_and_counts_the_others() -> None:
    bad = [(Path(f"{number:02d}.png"), PictureError("is empty")) for number in range(25)]
    text = str(unreadable(bad))
    assert text.startswith("25 pictures cannot be read")
    assert "19.png: is empty; and 5 more)" in text
    assert "20.png" not in text


@pytest.mark.parametrize(
    ("training", "validation", "said"), [(20, 3, ""), (20, 2, "dots 2, rows 2, sky 2"), (14, 0, "dots 2")]
)
def test_too_few_pictures_for_export_are_told_by_check_data(
    run: Run, tmp_path: Path, training: int, validation: int, said: str
) -> None:
    folder = tmp_path / "data"
    if validation:
        write_data_set(folder, training, validation)
    else:
        write_class_folders(folder, {"dots": training, "sky": 15}, 0)
    output = run("check-data", folder).output
    assert ("export needs 3 validation pictures" in output) == bool(said)
    assert said in output


def test_small_sources_are_seen_more_often_than_their_size_and_classes_equally() -> None:
    targets = np.repeat([0, 1], [1000, 200])
    sources = np.array(["large"] * 900 + ["small"] * 100 + ["large"] * 190 + ["small"] * 10)
    drawn = np.concatenate([index for epoch in range(1, 30) for index in by_source(targets, sources, 32, 0, epoch)])
    assert np.mean(targets[drawn] == 0) == pytest.approx(0.5, abs=0.02)
    of_class = drawn[targets[drawn] == 0]
    assert np.mean(sources[of_class] == "small") == pytest.approx(10 / 40, abs=0.02)
    assert [len(batch) for batch in by_source(targets, sources, 500, 0, 1)] == [500, 500, 200]


def test_too_little_shared_memory_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr("torch.utils.data._utils.fetch._MapDatasetFetcher.fetch", no_room)
    batches = pictures_in_order([tmp_path / "a.png"], np.zeros(1, dtype=np.int64), PreprocessSpec(32), 1)
    with pytest.raises(CanonistiaError, match="use --workers 0"):
        next(batches.epoch(1))
