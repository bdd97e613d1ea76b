"""What a batch leaves behind: Parquet, pictures sorted into folders, and a report."""

import base64
import io
import json
import re
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from cascade.inputs.item import Item
from cascade.outputs.rows import Answered, Row
from cascade.outputs.sorting import Sorter
from tests.conftest import CLASSES, Run, draw


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of six pictures, two of one name, and a damaged one."""
    folder = tmp_path / "photos"
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        for number, label in enumerate(CLASSES):
            draw(label, number + 10 * len(name) + (name == "two")).save(folder / name / f"{label}.png")
    (folder / "one" / "<b>.jpg").write_bytes(b"no picture")
    return folder


def test_parquet_holds_the_rows(run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    words = ("classify", photos, "--model", tiny_bundle)
    assert run(*words, "--out", tmp_path / "rows.parquet").exit_code == 3
    run(*words, "--out", tmp_path / "rows.jsonl")
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.schema.field("probability_1").type == "double"
    assert [table.schema.field(name).type for name in ("unsure", "both", "accepted")] == ["bool"] * 3
    assert table.to_pylist() == [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]


def test_parquet_in_parts_has_a_folder_for_each_value(
    run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    out = tmp_path / "rows.parquet"
    words = ("classify", photos, "--model", tiny_bundle, "--out", out, "--partition", "label_1")
    run(*words)
    rows = dataset.dataset(out, partitioning="hive").to_table().to_pylist()
    assert len(rows) == 7
    labels = {row["label_1"] for row in rows}
    assert {path.name for path in out.iterdir()} == {
        f"label_1={label or '__HIVE_DEFAULT_PARTITION__'}" for label in labels
    }
    assert run(*words).exit_code == 1
    assert run(*words, "--overwrite").exit_code == 3
    assert len(dataset.dataset(out, partitioning="hive").to_table()) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "rows.parquet"]


def test_without_pyarrow_parquet_is_refused_before_the_work(
    run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("classify", photos, "--model", tiny_bundle, "--out", tmp_path / "rows.parquet")
    assert result.exit_code == 1
    assert "pip install '.[batch]'" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    "words", [("--partition", "label_1"), ("--partition", "path", "--out", "x.parquet"), ("--dry-run",)]
)
def test_options_that_do_not_go_together_are_wrong_usage(run: Run, photos: Path, words: tuple[str, ...]) -> None:
    assert run("classify", photos, *words).exit_code == 2


@pytest.mark.parametrize("way", ["copy", "link"])
def test_pictures_are_sorted_into_folders_and_a_second_run_changes_nothing(
    run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path, way: str
) -> None:
    place = tmp_path / "sorted"
    words = ("classify", photos, "--model", tiny_bundle, "--sort-into", place, "--sort-by", way)
    dry = run(*words, "--dry-run")
    assert dry.exit_code == 3
    assert not place.exists()
    assert len(dry.stdout.splitlines()) == 6
    run(*words)
    files = sorted(path for path in place.rglob("*") if not path.is_dir())
    assert len(files) == 6
    assert all(path.is_symlink() == (way == "link") for path in files)
    assert {path.read_bytes() for path in files} == {path.read_bytes() for path in photos.rglob("*.png")}
    for line in dry.stdout.splitlines():
        assert (place / Path(line.partition(" -> ")[2]).relative_to(place)).exists()
    run(*words)
    assert sorted(path for path in place.rglob("*") if not path.is_dir()) == files


def test_pictures_of_an_archive_are_copied_and_cannot_be_linked(
    run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(photos / "one" / "sky.png", "deep/sky.png")
    words = ("classify", tmp_path / "photos.zip", "--model", tiny_bundle, "--sort-into", tmp_path / "sorted")
    refused = run(*words, "--sort-by", "link")
    assert refused.exit_code == 1
    assert "--sort-by copy" in refused.output
    assert run(*words).exit_code == 0
    (copied,) = (path for path in (tmp_path / "sorted").rglob("*.png"))
    assert copied.read_bytes() == (photos / "one" / "sky.png").read_bytes()


@pytest.mark.parametrize("label", ["..", "a/b", "../../escaped", "CON", "."])
def test_a_class_whose_name_leads_elsewhere_gets_a_folder_inside(tmp_path: Path, label: str) -> None:
    item = Item("a.png", 1, "", lambda: b"picture")
    Sorter(tmp_path / "sorted").add(Answered(item, Row("a.png", label, 0.9, "sky", 0.1, "main", False)))
    (copied,) = tmp_path.rglob("*.png")
    assert copied.parent.parent == tmp_path / "sorted"


@pytest.mark.parametrize(
    "name", ["x" * 245 + ".jpg", "a.zip::" + "y" * 400 + ".png", "t.tar::a\0b.png", "t.tar::..", "é" * 127]
)
def test_every_name_that_a_picture_can_have_is_sorted(tmp_path: Path, name: str) -> None:
    sorter = Sorter(tmp_path)
    for content in (b"one", b"two", b"three", b"one"):  # one name, as a table or an archive can hold it
        item = Item(name, 3, "", lambda content=content: content)  # type: ignore[misc]
        sorter.add(Answered(item, Row(name, "sky", 0.9, "rows", 0.1, "main", False)))
    assert sorted(path.read_bytes() for path in (tmp_path / "sky").iterdir()) == [b"one", b"three", b"two"]


def test_the_report_stands_alone_and_counts_everything(
    run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    words = ("classify", photos, "--model", tiny_bundle, "--report", page)
    assert run(*words).exit_code == 3
    text = page.read_text()
    assert "<tr><th>pictures<td>7" in text
    assert "<tr><th>answered<td>6" in text
    assert "is no picture of a known format" in text
    assert "&lt;b&gt;.jpg" in text
    assert "<b>" not in text
    addresses = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"|url\(([^)]*)\)|@import', text)
    assert addresses
    assert all(source.startswith("data:image/jpeg;base64,") for source, _ in addresses)
    assert "http" not in text
    assert run(*words).exit_code == 1
    assert run(*words, "--overwrite").exit_code == 3


def test_the_reports_pictures_can_be_seen(run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    run("classify", photos, "--model", tiny_bundle, "--report", tmp_path / "report.html")
    pictures = re.findall(r"base64,([^\"]+)", (tmp_path / "report.html").read_text())
    assert pictures
    for data in pictures:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert max(picture.size) <= 160
