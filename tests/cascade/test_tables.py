"""Data sets as people have them: tables of any kind, with paths or with pictures, and Hugging Face's folders."""

import csv
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import labelled_pictures as evaluated_pictures
from cascade.images.decoding import decode
from cascade.images.folders import LabelledPicture
from cascade.images.manifest import is_listed, labelled_pictures
from tests.conftest import Run, draw, write_class_folders

NAMES = ["rows", "sky"]


def pictures_in(folder: Path, count: int = 4) -> list[dict[str, Any]]:
    """Write pictures into one folder and return a row for each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        label = NAMES[number % 2]
        draw(label, number).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "label": label})
    return rows


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return path


def write_shard(path: Path, count: int, first: int = 0) -> Path:
    """Write a Parquet table as Hugging Face does: pictures with their bytes, numbers of classes, names in metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / "scratch.png"
    rows = []
    for number in range(first, first + count):
        draw(NAMES[number % 2], number).save(scratch)
        rows.append({"image": {"bytes": scratch.read_bytes(), "path": f"{number}.PNG"}, "label": number % 2})
    scratch.unlink()
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    table = pyarrow.Table.from_pylist(rows)
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    pyarrow.parquet.write_table(table.replace_schema_metadata(noted), path)
    return path


def counted(pictures: list[LabelledPicture]) -> dict[tuple[str, str], int]:
    return dict(Counter((picture.split, picture.label) for picture in pictures))


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.ndjson", "m.parquet"])
@pytest.mark.parametrize(("path", "label"), [("path", "label"), ("file_name", "class"), ("filename", "category")])
def test_every_kind_of_table_lists_the_same_pictures(tmp_path: Path, name: str, path: str, label: str) -> None:
    rows = pictures_in(tmp_path / "photos")
    splits = ("train", "train", "dev", "testing")
    listed = [
        {path: f"photos/{row['file_name']}", label: row["label"], "split": split}
        for row, split in zip(rows, splits, strict=True)
    ]
    found = labelled_pictures(write_table(tmp_path / name, listed))
    assert [picture.path for picture in found] == [tmp_path / "photos" / row["file_name"] for row in rows]
    assert [picture.split for picture in found] == ["training", "training", "validation", "test"]
    assert [picture.label for picture in found] == [row["label"] for row in rows]


def test_pictures_inside_a_parquet_table_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "cache"))
    shard = write_shard(tmp_path / "photos.parquet", 5)
    found = labelled_pictures(shard)
    assert [picture.label for picture in found] == ["rows", "sky", "rows", "sky", "rows"]
    for number, picture in enumerate(found):
        assert picture.path.suffix == ".png"
        assert decode(picture.path).tobytes() == draw(picture.label, number).tobytes()
    (folder,) = (tmp_path / "cache").iterdir()
    before = folder.stat().st_mtime_ns
    assert labelled_pictures(shard) == found
    assert folder.stat().st_mtime_ns == before


def test_a_row_of_a_parquet_table_may_name_a_file_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "cache"))
    draw("sky", 1).save(tmp_path / "one.png")
    content = (tmp_path / "one.png").read_bytes()
    rows = [
        {"image": {"bytes": None, "path": "one.png"}, "label": "sky"},
        {"image": {"bytes": content, "path": None}, "label": "sky"},
    ]
    first, second = labelled_pictures(write_table(tmp_path / "m.parquet", rows))
    assert first.path == tmp_path / "one.png"
    assert second.path.read_bytes() == content


def test_pictures_in_a_plain_column_of_bytes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "cache"))
    draw("sky", 1).save(tmp_path / "one.png")
    content = (tmp_path / "one.png").read_bytes()
    (picture,) = labelled_pictures(write_table(tmp_path / "m.parquet", [{"bytes": content, "class": "sky"}]))
    assert picture.path.read_bytes() == content


def test_where_pictures_cannot_be_unpacked_the_error_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "file"))
    shard = write_shard(tmp_path / "photos.parquet", 2)
    with pytest.raises(CanonistiaError, match=r"photos\.parquet cannot be unpacked .* set CANONISTIA_CACHE"):
        labelled_pictures(shard)


@pytest.mark.parametrize("inside", ["", "data"])
def test_a_folder_of_parquet_tables_has_its_splits_in_their_names(
    tmp_path: Path, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    write_shard(folder / inside / "train-00000-of-00002.parquet", 4)
    write_shard(folder / inside / "train-00001-of-00002.parquet", 2, 100)
    write_shard(folder / inside / "validation-00000-of-00001.parquet", 2, 200)
    found = labelled_pictures(folder)
    assert counted(found) == {
        ("training", "rows"): 3, ("training", "sky"): 3, ("validation", "rows"): 1, ("validation", "sky"): 1
    }  # fmt: skip
    assert evaluated_pictures(folder, tuple(NAMES)) == [p for p in found if p.split == "validation"]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_in_each_split_gives_the_labels(tmp_path: Path, name: str) -> None:
    for split, count in (("train", 4), ("test", 2)):
        write_table(tmp_path / split / name, pictures_in(tmp_path / split, count))
    assert counted(labelled_pictures(tmp_path)) == {
        ("training", "rows"): 2, ("training", "sky"): 2, ("test", "rows"): 1, ("test", "sky"): 1
    }  # fmt: skip
    assert is_listed(tmp_path)


def test_metadata_beside_all_pictures_takes_splits_from_their_folders(tmp_path: Path) -> None:
    rows = [
        {"file_name": f"{split}/{row['file_name']}", "label": row["label"]}
        for split in ("train", "valid")
        for row in pictures_in(tmp_path / split, 2)
    ]
    write_table(tmp_path / "metadata.jsonl", rows)
    assert counted(labelled_pictures(tmp_path)) == {
        ("training", "rows"): 1, ("training", "sky"): 1, ("validation", "rows"): 1, ("validation", "sky"): 1
    }  # fmt: skip


def test_metadata_of_one_folder_is_an_unsplit_set(tmp_path: Path) -> None:
    write_table(tmp_path / "metadata.csv", pictures_in(tmp_path))
    assert counted(labelled_pictures(tmp_path)) == {("", "rows"): 2, ("", "sky"): 2}
    assert len(evaluated_pictures(tmp_path, tuple(NAMES))) == 4


def test_metadata_without_labels_is_not_what_classes_come_from(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"sky": 2, "rows": 1}, 0)
    write_table(tmp_path / "metadata.csv", [{"file_name": "sky/000.png", "text": "a sky"}])
    assert counted(labelled_pictures(tmp_path)) == {("", "sky"): 2, ("", "rows"): 1}
    assert not is_listed(tmp_path)


def test_a_table_beside_class_folders_is_no_data_set(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"sky": 2, "rows": 1}, 0)
    write_table(tmp_path / "notes.parquet", [{"a": 1}])
    assert counted(labelled_pictures(tmp_path)) == {("", "sky"): 2, ("", "rows"): 1}


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"path": "a.png", "label": "sky"}\n["b.png", "sky"]\n{"path"\n')
    with pytest.raises(CanonistiaError, match=r"lines that are no JSON objects; .* \(line 2, line 3\)"):
        labelled_pictures(tmp_path / "m.jsonl")


def test_a_class_number_without_a_name_stays_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "cache"))
    shard = write_shard(tmp_path / "photos.parquet", 2)
    table = pyarrow.parquet.read_table(shard)
    changed = table.set_column(1, "label", pyarrow.array([0, 7]))
    pyarrow.parquet.write_table(changed, shard)
    assert [picture.label for picture in labelled_pictures(shard)] == ["rows", "7"]


def test_without_pyarrow_the_extra_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "photos.parquet", 2)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("evaluate", shard)
    assert result.exit_code == 1
    assert "needs pyarrow" in result.output
    assert "batch extra" in result.output
