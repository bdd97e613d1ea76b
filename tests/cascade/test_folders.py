"""Reading labelled folders."""

import os
from pathlib import Path

import pytest

from cascade.errors import CanonistiaError
from cascade.images.folders import class_names, pictures_below, read_class_folders, read_data_set
from tests.conftest import write_class_folders


@pytest.mark.parametrize(("training", "validation"), [("train", "val"), ("training", "valid"), ("Train", "Validation")])
def test_every_usual_name_of_a_split_is_understood(tmp_path: Path, training: str, validation: str) -> None:
    for folder in (training, validation, "test"):
        write_class_folders(tmp_path / folder, {"sky": 1, "rows": 1}, 0)
    splits = {picture.split for picture in read_data_set(tmp_path)}
    assert splits == {"training", "validation", "test"}


def test_an_unsplit_tree_has_no_split(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"sky": 2, "rows": 1}, 0)
    pictures = read_data_set(tmp_path)
    assert [(picture.label, picture.split) for picture in pictures] == [("rows", ""), ("sky", ""), ("sky", "")]


def test_hidden_folders_and_files_are_no_pictures(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"sky": 1, "rows": 1, ".ipynb_checkpoints": 1}, 0)
    (tmp_path / "sky" / "._000.png").write_bytes(b"x")
    (tmp_path / "sky" / "notes.txt").write_text("x")
    assert class_names(read_class_folders(tmp_path)) == ["rows", "sky"]
    assert len(pictures_below(tmp_path)) == 2


def test_files_come_in_path_order_one_folder_at_a_time(tmp_path: Path) -> None:
    for name in ("b.png", "b/c.png", "b/a/z.png", "b.d/e.png", "a-b/f.png", "a/f.png", "a.png", "Z.PNG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = pictures_below(tmp_path)
    assert len(found) == 8
    assert found == sorted(found)


def test_links_in_circles_come_to_an_end(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"sky": 1}, 0)
    (tmp_path / "sky" / "again").symlink_to(tmp_path)
    assert len(pictures_below(tmp_path)) == 1


def test_two_names_for_one_split_are_refused(tmp_path: Path) -> None:
    for folder in ("train", "val", "validation"):
        write_class_folders(tmp_path / folder, {"sky": 1}, 0)
    with pytest.raises(CanonistiaError, match="two folders for the validation split: val and validation"):
        read_data_set(tmp_path)


def test_classes_beside_splits_are_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", {"sky": 1}, 0)
    write_class_folders(tmp_path, {"rows": 1}, 0)
    with pytest.raises(CanonistiaError, match="other folders with pictures"):
        read_data_set(tmp_path)


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"train": 2, "car": 1}, 0)
    assert class_names(read_data_set(tmp_path)) == ["car", "train"]


def test_a_class_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"sky": 1, os.fsdecode(b"caf\xe9"): 1}, 0)
    with pytest.raises(CanonistiaError, match="rename the folder"):
        read_data_set(tmp_path)


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(CanonistiaError, match="one folder per class"):
        read_data_set(tmp_path)
