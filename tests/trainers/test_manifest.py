"""Data sets as tables, and how check-data cleans one."""

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from cascade.errors import CanonistiaError
from cascade.images.manifest import read_manifest
from tests.conftest import CLASSES, Run, draw, write_class_folders, write_data_set
from trainers.data.dataset import load_data_set
from trainers.data.examples import split_examples


def rows_of(folder: Path, start: Path) -> list[dict[str, str]]:
    return [
        {"path": str(path.relative_to(start)), "label": path.parent.name, "split": path.parent.parent.name}
        for path in sorted(folder.rglob("*.png"))
    ]


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_manifest_is_the_same_data_set_as_its_folders(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", training=2, validation=1)
    rows = rows_of(folder, tmp_path)
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    whole = load_data_set(folder, 0)
    for manifest in (write_csv(tmp_path / "m.csv", rows), tmp_path / "m.parquet"):
        listed = load_data_set(manifest, 0)
        assert listed.fingerprint == whole.fingerprint
        assert [picture.path.resolve() for picture in listed.training] == [p.path.resolve() for p in whole.training]


def test_a_manifest_without_splits_is_split_and_extra_columns_are_passed_over(tmp_path: Path) -> None:
    rows = rows_of(write_data_set(tmp_path / "data", training=5, validation=0), tmp_path)
    plain = [{"path": row["path"], "label": row["label"], "note": "x"} for row in rows]
    data = load_data_set(write_csv(tmp_path / "m.csv", plain), 0)
    assert (len(data.training), len(data.validation)) == (12, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "gone.png"}, r"missing files; correct the paths, which are relative to .* \(.*gone.png\)"),
        ({"split": "extra"}, r"unknown splits; expected training, validation, test, .* \(row 1: 'extra'\)"),
        (
            {"label": "../../escaped"},
            r"labels that cannot be the name of a folder; rename them \(row 1: .* holds a '/'\)",
        ),
        ({"label": "."}, r"labels that cannot be the name of a folder"),
        ({"split": ""}, r"rows without a split among rows with one; .* \(row 1\)"),
        ({"label": " "}, r"rows without a path or a label; .* \(row 1\)"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, str], message: str) -> None:
    first, *rest = rows_of(write_data_set(tmp_path / "data", training=1, validation=1), tmp_path)
    with pytest.raises(CanonistiaError, match=message):
        read_manifest(write_csv(tmp_path / "m.csv", [first | change, *rest]))


def test_a_path_twice_a_missing_column_and_another_file_are_refused(tmp_path: Path) -> None:
    rows = rows_of(write_data_set(tmp_path / "data", training=1, validation=1), tmp_path)
    with pytest.raises(CanonistiaError, match="paths that appear twice"):
        read_manifest(write_csv(tmp_path / "m.csv", [*rows, rows[0]]))
    with pytest.raises(CanonistiaError, match="lacks the column label; expected path, label, split"):
        read_manifest(write_csv(tmp_path / "m.csv", [{"path": row["path"]} for row in rows]))
    (tmp_path / "m.parquet").write_bytes(b"no table")
    with pytest.raises(CanonistiaError, match="is no Parquet file"):
        read_manifest(tmp_path / "m.parquet")
    with pytest.raises(
        CanonistiaError, match=r"neither a folder .* nor a table; .*\.csv, \.jsonl, \.ndjson or \.parquet"
    ):
        read_manifest(next((tmp_path / "data").rglob("*.png")))


def test_fix_keeps_one_of_each_picture_and_touches_none(run: Run, tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", training=3, validation=2)
    training, validation = folder / "training", folder / "validation"
    shutil.copy(training / "sky/000.png", training / "sky/again.png")
    shutil.copy(validation / "rows/500.png", training / "rows/leaked.png")
    shutil.copy(training / "dots/001.png", training / "rows/dots.png")
    (training / "sky/broken.png").write_bytes(b"nothing")
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    done = run("check-data", folder, "--fix", tmp_path / "clean.csv")
    assert done.exit_code == 0, done.output
    assert "have two labels" in done.output
    assert before == {path: path.read_bytes() for path in folder.rglob("*.png")}
    with (tmp_path / "clean.left_out.csv").open(newline="") as file:
        out = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert out["again.png"]["reason"] == "copy of training/sky/000.png"
    assert out["leaked.png"]["reason"] == "copy of validation/rows/500.png"
    assert out["dots.png"]["reason"] == out["001.png"]["reason"] == "two labels: dots, rows"
    assert out["dots.png"]["group"] == out["001.png"]["group"]
    assert out["broken.png"]["reason"].startswith("unreadable")
    kept = load_data_set(tmp_path / "clean.csv", 0)
    assert kept.classes == CLASSES
    assert len(kept.training) + len(kept.validation) == len(before) - len(out)
    again = run("check-data", tmp_path / "clean.csv", "--fix", tmp_path / "clean.csv")
    assert again.exit_code == 1
    assert "exists; choose another name" in again.output


TINY = ("--backbone", "timm/test_vit", "--no-pretrained", "--size", 32, "--tracker", "none", "--unfreeze", "all")


@pytest.mark.parametrize("options", [("--workers", 2), ("--cache", "memory"), ("--cache", "disk", "--workers", 1)])
def test_workers_and_caches_change_nothing_but_speed(run: Run, tmp_path: Path, options: tuple[object, ...]) -> None:
    folder = write_data_set(tmp_path / "data", training=3, validation=2)
    arguments = (*TINY, "--epochs", 2, "--augment", "strong", "--batch-size", 4, "--sampler", "balanced")
    for name, more in (("plain", ()), ("other", options)):
        done = run("train-main", folder, "--out", tmp_path / name, *arguments, *more)
        assert done.exit_code == 0, done.output
    plain, other = ((tmp_path / name / "last.safetensors").read_bytes() for name in ("plain", "other"))
    assert plain == other


def test_a_balanced_batch_larger_than_the_classes_allow_is_refused(run: Run, tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", training=3, validation=1)
    done = run("train-main", folder, "--out", tmp_path / "run", *TINY, "--sampler", "balanced", "--batch-size", 12)
    assert done.exit_code == 1
    assert "the smallest class has 3 pictures, expected 4 for a balanced batch of 12 of 3 classes" in done.output
    assert "lower --batch-size to 9" in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_label_of_zero_is_a_label_and_nan_is_none(tmp_path: Path, ending: str) -> None:
    write_class_folders(tmp_path, {"sky": 4}, 0)
    paths = [f"sky/{number:03d}.png" for number in range(4)]

    def written(labels: list[object]) -> Path:
        table = pyarrow.table({"path": paths, "label": labels})
        path = tmp_path / f"table.{ending}"
        pyarrow.parquet.write_table(table, path) if ending == "parquet" else pyarrow.csv.write_csv(table, path)
        return path

    assert [picture.label for picture in read_manifest(written([0, 1, 0, 2]))] == ["0", "1", "0", "2"]
    if ending == "parquet":  # whole numbers with some missing come as floats
        with pytest.raises(CanonistiaError, match=r"rows without a path or a label; .* \(row 2\)"):
            read_manifest(written([0.0, float("nan"), 1.0, 2.0]))
        assert {picture.label for picture in read_manifest(written([0.0, 1.0, 1.0, 2.0]))} == {"0", "1", "2"}


def test_sources_are_kept_and_named_when_data_sets_are_joined(run: Run, tmp_path: Path) -> None:
    write_data_set(tmp_path / "home", 3, 2)
    write_class_folders(tmp_path / "away", {"sky": 2, "dots": 1}, 900)
    rows = ["path,label,source", "sky/900.png,sky,lake", "sky/901.png,sky,", "dots/900.png,dots,wood"]
    (tmp_path / "away" / "more.csv").write_text("\n".join(rows))
    result = run("check-data", tmp_path / "home", "--add", tmp_path / "away/more.csv", "--fix", tmp_path / "all.csv")
    assert result.exit_code == 0, result.output
    pictures = read_manifest(tmp_path / "all.csv")
    assert Counter((picture.source, picture.split) for picture in pictures) == {
        ("home", "training"): 9,
        ("home", "validation"): 6,
        ("lake", "training"): 1,
        ("more", "training"): 1,
        ("wood", "training"): 1,
    }
    assert [p.source for p in pictures if p.path.parent.name == "dots" and "away" in p.path.parts] == ["wood"]


def test_a_data_set_of_one_source_without_a_name_has_no_such_column(run: Run, tmp_path: Path) -> None:
    write_data_set(tmp_path / "home", 3, 2)
    assert run("check-data", tmp_path / "home", "--fix", tmp_path / "all.csv").exit_code == 0
    assert (tmp_path / "all.csv").read_text().splitlines()[0] == "path,label,split"


def test_evaluate_measures_each_source_of_a_manifest(run: Run, tiny_bundle: Path, tiny_data: Path) -> None:
    pictures = sorted((tiny_data / "validation").rglob("*.png"))
    lines = [
        (path.relative_to(tiny_data), path.parent.name, "even" if index % 4 else "fourth")
        for index, path in enumerate(pictures)
    ]
    manifest = tiny_data / "sources.csv"
    manifest.write_text("path,label,source\n" + "\n".join(",".join(map(str, line)) for line in lines))
    report = json.loads(run("evaluate", manifest, "--model", tiny_bundle, "--json").stdout)
    sources = report["sources"]
    assert {name: figures["pictures"] for name, figures in sources.items()} == {"even": 18, "fourth": 6}
    for stage in ("main", "cascade"):
        assert report[stage].keys() == sources["even"][stage].keys()
        hits = sum(round(figures[stage]["top1"] * figures["pictures"]) for figures in sources.values())
        assert hits == round(report[stage]["top1"] * report["pictures"])
    assert "mean" in run("evaluate", manifest, "--model", tiny_bundle).stdout


def test_names_that_are_no_text_come_through_check_data_and_back(run: Run, tmp_path: Path) -> None:
    names = [b"caf\xe9.png", rb"caf\xe9.png", rb"a\xb", "é.png".encode()]
    (tmp_path / "sky").mkdir()
    for number, name in enumerate(names):
        draw("sky", number).save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(tmp_path / "sky" / os.fsdecode(name))
    assert run("check-data", tmp_path, "--fix", tmp_path / "m.csv").exit_code == 0
    found = [os.fsencode(picture.path.name) for picture in read_manifest(tmp_path / "m.csv")]
    assert sorted(found) == sorted(names)


def weighted(folder: Path, weights: dict[str, str]) -> Path:
    """Return a manifest of a tiny data set, below which it lies, with a weight for each class."""
    rows = [
        f"{path.relative_to(folder)},{path.parent.name},{path.parts[-3]},{weights.get(path.parent.name, '')}"
        for path in sorted(folder.glob("*/*/*.png"))
    ]
    manifest = folder / "weighted.csv"
    manifest.write_text("\n".join(["path,label,split,weight", *rows]), encoding="utf-8")
    return manifest


def test_weights_are_kept_and_reach_the_training_with_a_mean_of_1(run: Run, tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data", 6, 3)
    manifest = weighted(data, {"sky": "3"})
    assert run("check-data", manifest, "--fix", data / "fixed.csv").exit_code == 0
    loaded = load_data_set(data / "fixed.csv", 0)
    training = split_examples(loaded).training
    assert training.weights.mean() == pytest.approx(1)
    sky = training.targets == loaded.classes.index("sky")
    assert training.weights[sky] == pytest.approx(3 * training.weights[~sky][0])
    assert loaded.weights_sha256
    assert not load_data_set(data, 0).weights_sha256


def test_of_two_labels_the_one_that_counts_more_is_learnt(run: Run, tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data", 12, 6)
    words = ("--size", 64, "--epochs", 30, "--tracker", "none", "--no-report")
    named_sky = []
    for weight in ("0.01", "100"):
        rows = list(csv.DictReader(weighted(data, {}).read_text(encoding="utf-8").splitlines()))
        for row in [row for row in rows if row["path"].startswith("training/sky")][::2]:
            row |= {"label": "dots", "weight": weight}
        out = tmp_path / weight
        assert run("train-main", write_csv(data / "mixed.csv", rows), "--out", out, *words).exit_code == 0
        named_sky.append(read_predictions(out))
    assert named_sky[0] >= 5
    assert named_sky[1] <= 1
    rows[0]["weight"] = "7"
    result = run("train-main", write_csv(data / "mixed.csv", rows), "--out", out, *words, "--resume")
    assert "data_weights" in result.output


def read_predictions(run: Path) -> int:
    """Return how many validation pictures a run names sky."""
    confusion = json.loads((run / "confusion.json").read_text())
    sky = confusion["classes"].index("sky")
    return sum(row[sky] for row in confusion["pictures"])


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "inf", "much"])
def test_a_weight_that_is_no_positive_number_is_refused(run: Run, tmp_path: Path, wrong: str) -> None:
    data = write_data_set(tmp_path / "data", 3, 2)
    result = run("check-data", weighted(data, {"sky": wrong}))
    assert result.exit_code == 1
    assert "weights that are no positive numbers" in result.output
