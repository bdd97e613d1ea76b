"""check-data: what it finds in a data set."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Run, draw, write_data_set
from trainers.data.audit import audit, examine
from trainers.data.fingerprints import NEAR_BITS, near_pairs


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Return a data set with an identical pair across splits, one under two labels, a near pair and bad files."""
    folder = write_data_set(tmp_path / "data", training=3, validation=2)
    shutil.copy(folder / "training/sky/000.png", folder / "validation/sky/copy.png")
    shutil.copy(folder / "training/rows/001.png", folder / "training/dots/stray.png")
    grey = draw("sky", 1).convert("L")
    grey.save(folder / "training/sky/001.png")
    draw("dots", 2).resize((144, 120)).save(folder / "training/dots/larger.jpg", quality=85)
    (folder / "training/sky/text.jpg").write_text("text")
    (folder / "training/sky/empty.jpg").write_bytes(b"")
    (folder / ".git").mkdir()
    (folder / "training" / "fog").mkdir()
    (folder / "training" / "sky" / "film.mp4").write_bytes(b"x")
    return folder


def test_every_fault_is_found(faulty: Path) -> None:
    report = audit(examine(faulty))
    assert report.pictures == 20
    assert report.classes == ("dots", "rows", "sky")
    assert report.counts["training"] == {"dots": 5, "rows": 3, "sky": 5}
    assert {item.path for item in report.unreadable} == {"training/sky/text.jpg", "training/sky/empty.jpg"}
    same = {frozenset(item.paths): item for item in report.same}
    across = same[frozenset({"training/sky/000.png", "validation/sky/copy.png"})]
    assert (across.identical, across.across_splits, across.across_labels) == (True, True, False)
    labels = same[frozenset({"training/rows/001.png", "training/dots/stray.png"})]
    assert (labels.identical, labels.across_splits, labels.across_labels) == (True, False, True)
    assert report.empty == ("training/fog",)
    assert report.passed_over == {".mp4": 1, "hidden": 1}
    assert report.layout.startswith("training in training: 3 classes (dots, rows, sky); validation in validation")
    assert report.modes == {"RGB": 17, "L": 1}
    near = same[frozenset({"training/dots/002.png", "training/dots/larger.jpg"})]
    assert not near.identical


def test_json_and_text_name_the_same_files(run: Run, faulty: Path) -> None:
    report = json.loads(run("check-data", faulty, "--json").stdout)
    text = run("check-data", faulty).stdout
    for item in report["same"]:
        assert all(path in text for path in item["paths"])
    assert "ACROSS SPLITS" in text
    assert "TWO LABELS" in text
    assert "training/sky/empty.jpg: is empty" in text


def test_an_empty_folder_is_one_sentence(run: Run, tmp_path: Path) -> None:
    result = run("check-data", tmp_path)
    assert result.exit_code == 1
    assert "one folder per class" in result.output


def test_scene15_identical_pictures_across_the_splits_are_named(run: Run, scene15: Path) -> None:
    report = json.loads(run("check-data", scene15, "--json").stdout)
    assert report["pictures"] == 4260
    across = [item["paths"] for item in report["same"] if item["identical"] and item["across_splits"]]
    assert ["training/Living room/image_0003.jpg", "validation/Living room/image_0028.jpg"] in across
    for first, second in across:
        assert (scene15 / first).read_bytes() == (scene15 / second).read_bytes()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_near_pairs_are_exactly_the_pairs_within_the_distance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.random((6, 64)) < 0.5
    flips = np.zeros((30, 64), dtype=bool)
    for row in flips:
        row[rng.choice(64, rng.integers(0, 8), replace=False)] = True
    bits = base[rng.integers(0, 6, 30)] ^ flips
    expected = [(i, j) for i in range(30) for j in range(i + 1, 30) if (bits[i] != bits[j]).sum() <= NEAR_BITS]
    assert near_pairs(bits) == expected
