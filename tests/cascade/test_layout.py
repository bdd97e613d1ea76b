"""Which folders of a data set are splits, and which are classes."""

import unicodedata
from pathlib import Path

import pytest

from cascade.errors import CanonistiaError, UsageError
from cascade.images.folders import PassedOver, PictureFilter, walk
from cascade.images.labels import file_name, label_fault
from cascade.images.layout import layout_of, read_data_set, split_of
from tests.conftest import write_class_folders

CLASSES = {"sky": 2, "rows": 1}


def splits_in(folder: Path) -> dict[str, int]:
    splits = [picture.split for picture in read_data_set(folder)]
    return {split: splits.count(split) for split in splits}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "training") for name in ("train", "Training", "train_set", "seg_train", "TRAIN", "my-training")),
        *((name, "validation") for name in ("val", "valid", "Validation", "val_set", "dev", "seg_val", "img valid")),
        *((name, "test") for name in ("test", "Testing", "test_images", "seg_test", "my test")),
        *((name, "") for name in ("bus", "sky", "developer", "latest", "interval", "street")),
    ],
)
def test_the_usual_names_of_splits_are_known(name: str, split: str) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize("names", [("train_set", "val_set"), ("seg_train", "seg_dev"), ("Training", "Validation")])
def test_splits_go_under_any_usual_names(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write_class_folders(tmp_path / name, CLASSES, 0)
    assert splits_in(tmp_path) == {"training": 3, "validation": 3}


def test_wrapping_folders_are_looked_through(tmp_path: Path) -> None:
    for name in ("seg_train", "seg_test"):
        write_class_folders(tmp_path / "archive" / "data" / name / name, CLASSES, 0)
    assert splits_in(tmp_path) == {"training": 3, "test": 3}
    assert {picture.label for picture in read_data_set(tmp_path)} == {"sky", "rows"}


def test_a_wrapped_tree_without_splits_has_its_own_classes(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos", CLASSES, 0)
    assert {picture.label for picture in read_data_set(tmp_path)} == {"sky", "rows"}


@pytest.mark.parametrize("others", [("bus",), ("test", "bus"), ("val", "tram", "bus")])
def test_a_split_name_beside_other_classes_is_a_class(tmp_path: Path, others: tuple[str, ...]) -> None:
    write_class_folders(tmp_path, dict.fromkeys(("train", *others), 1), 0)
    assert {picture.label for picture in read_data_set(tmp_path)} == {"train", *others}
    assert splits_in(tmp_path) == {"": 1 + len(others)}


def test_stray_pictures_in_a_split_are_counted_and_passed_over(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write_class_folders(tmp_path / name, CLASSES, 0)
        (tmp_path / name / "preview.jpg").write_bytes(b"x")
    assert splits_in(tmp_path) == {"training": 3, "validation": 3}
    assert layout_of(tmp_path).describe().endswith("2 pictures beside class folders passed over")


def test_splits_without_a_common_class_are_doubtful(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "trains", {"steam": 1, "electric": 1}, 0)
    write_class_folders(tmp_path / "valleys", {"alps": 1, "andes": 1}, 0)
    with pytest.raises(CanonistiaError, match=r"no class in common \(training in trains: 2 classes .*name the folders"):
        read_data_set(tmp_path)


def test_one_class_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    for split, form in (("train", "NFC"), ("val", "NFD")):
        write_class_folders(tmp_path / split, {unicodedata.normalize(form, "forêt"): 1, "mer": 1}, 0)
    assert {picture.label for picture in read_data_set(tmp_path)} == {"for\u00eat", "mer"}


def test_links_to_folders_elsewhere_are_followed_once(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "elsewhere", {"sky": 2}, 0)
    write_class_folders(tmp_path / "photos", {"sky": 1}, 0)
    for name in ("album", "album again"):
        (tmp_path / "photos" / name).symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "own").symlink_to("sky")
    chosen = PictureFilter()
    assert len(list(walk(tmp_path / "photos", chosen))) == 3
    assert chosen.passed.describe() == "3 entries passed over: 3 linked folder, seen already"


def test_files_are_known_by_their_first_bytes_and_the_rest_is_counted(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"sky": 1}, 0)
    picture = (tmp_path / "sky" / "000.png").read_bytes()
    for name in ("noending", "b.jpg_large", "d.jfif", "e.heic", "@eaDir/t.jpg", ".hidden.png", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture)
    for name in ("notes.txt", "README", "clip.mp4"):
        (tmp_path / name).write_text("text")
    chosen = PictureFilter()
    names = [path.name for path in walk(tmp_path, chosen) if isinstance(path, Path)]
    assert names == ["b.jpg_large", "d.jfif", "e.heic", "noending", "000.png"]
    assert chosen.passed.reasons == {"of the system": 2, "hidden": 1, ".txt": 1, "without an ending": 1, ".mp4": 1}


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["rows"], "sky/000 sky/001 sky/raw/000 sky/raw/deep/000"),
        (["raw", "rows"], "sky/000 sky/001"),
        (["raw/"], "rows/000 sky/000 sky/001"),
        (["000.png/"], "rows/000 sky/000 sky/001 sky/raw/000 sky/raw/deep/000"),
        (["/raw"], "rows/000 sky/000 sky/001 sky/raw/000 sky/raw/deep/000"),
        (["sky/raw"], "rows/000 sky/000 sky/001"),
        (["/sky/*.png"], "rows/000 sky/raw/000 sky/raw/deep/000"),
        (["sky/**/000.png"], "rows/000 sky/001"),
        (["**/deep"], "rows/000 sky/000 sky/001 sky/raw/000"),
        (["00[1-9].png", "d??p"], "rows/000 sky/000 sky/raw/000"),
        (["*.png"], ""),
        (["*.PNG"], "rows/000 sky/000 sky/001 sky/raw/000 sky/raw/deep/000"),
    ],
)
def test_what_is_excluded_is_passed_over(tmp_path: Path, exclude: list[str], left: str) -> None:
    write_class_folders(tmp_path, {"sky": 2, "rows": 1, "sky/raw": 1, "sky/raw/deep": 1}, 0)
    chosen = PictureFilter(exclude)
    found = [path.relative_to(tmp_path).with_suffix("") for path in walk(tmp_path, chosen) if isinstance(path, Path)]
    assert " ".join(map(str, found)) == left
    assert bool(chosen.passed.reasons["excluded"]) == (len(found) < 5)


@pytest.mark.parametrize("pattern", ["", "/", "//"])
def test_a_pattern_that_excludes_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="expected a name or a path"):
        PictureFilter([pattern])


def test_any_number_of_endings_is_counted_in_one_short_line() -> None:
    passed = PassedOver()
    for number in range(1000):
        passed.add(f".{number}")
    assert len(passed.reasons) == 101
    assert passed.describe().startswith("1,000 entries passed over: 900 with other endings, 1 .0, ")
    assert passed.describe().endswith(" and 95 more")


FAULTY = ["a/b", "../../escaped", "..", ".", "", "  ", "a\\b", "a\0b", "a\nb", "é" * 200, "a\udce9"]


@pytest.mark.parametrize("label", FAULTY)
def test_a_label_that_can_be_no_folder_has_a_fault(label: str) -> None:
    assert label_fault(label)


NAMES = [
    "coast",
    "Tall building",
    "forêt",
    "CON",
    "nul.txt",
    "a.",
    ".a",
    "a ",
    "日本",
    "é" * 120,
    "é" * 119 + "x",
    "a%2E",
]


def test_every_label_has_a_file_name_of_its_own() -> None:
    made = [file_name(label) for label in NAMES]
    assert len(set(made)) == len(NAMES)
    assert made[:2] == NAMES[:2]
    for name in made:
        assert len(name.encode()) <= 100
        assert not name.startswith(".")
        assert not name.endswith((".", " "))
        assert name.partition(".")[0].lower() not in ("con", "nul")
