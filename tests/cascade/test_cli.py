"""classify, evaluate and models, as a person calls them."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import canonistia
from cascade.bundle.reading import read_bundle
from cascade.images.decoding import decode
from cascade.outputs.journal import Terms, opened_journal
from tests.conftest import CLASSES, Run, draw
from tests.waiting import started, wait_until

COLUMNS = ["path", "label_1", "probability_1", "label_2", "probability_2", "stage", "unsure", "error"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of three pictures, one of them below another folder, and two bad files."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    draw("sky", 1).save(folder / "a.png")
    draw("rows", 2).save(folder / "deep" / "c.jpg")
    draw("dots", 3).save(folder / "d.webp")
    (folder / "b.jpg").write_text("no picture")
    (folder / "e.jpg").write_bytes(b"")
    return folder


def test_csv_rows_follow_the_paths_and_bad_files_carry_their_error(run: Run, tiny_bundle: Path, photos: Path) -> None:
    out = photos.parent / "rows.csv"
    result = run("classify", photos, "--model", tiny_bundle, "--out", out)
    assert result.exit_code == 3
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert len(rows) == 5
    bad = {Path(row["path"]).name: row for row in rows if row["error"]}
    assert set(bad) == {"b.jpg", "e.jpg"}
    assert all(row[name] == "" for row in bad.values() for name in COLUMNS[1:-1])
    good = [row for row in rows if not row["error"]]
    assert all(row["stage"] in ("main", "submodels") and row["unsure"] in ("true", "false") for row in good)


def test_json_lines_hold_the_same_rows(run: Run, tiny_bundle: Path, photos: Path) -> None:
    out = photos.parent / "rows.jsonl"
    run("classify", photos / "a.png", photos / "e.jpg", "--model", tiny_bundle, "--out", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [list(row) for row in rows] == [COLUMNS, COLUMNS]
    assert rows[0]["error"] is None
    assert isinstance(rows[0]["probability_1"], float)
    assert rows[1]["label_1"] is None


def test_main_only_gives_the_main_models_answers_and_is_another_run(
    run: Run, routing_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    words = ("classify", photos / "a.png", photos / "d.webp", "--model", routing_bundle, "--out", out)
    run(*words)
    assert [json.loads(line)["stage"] for line in out.read_text().splitlines()] == ["submodels"] * 2
    run(*words, "--overwrite", "--main-only")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    engine = canonistia.load(str(routing_bundle))
    pictures = [decode(photos / name) for name in ("a.png", "d.webp")]
    main = [engine.main_outputs([picture], "probabilities")[0][0] for picture in pictures]  # (K,) each
    for row, probabilities in zip(rows, main, strict=True):
        first, second = np.argsort(-probabilities)[:2]
        assert (row["stage"], row["label_1"], row["label_2"]) == ("main", engine.classes[first], engine.classes[second])
        assert (row["probability_1"], row["probability_2"]) == (probabilities[first], probabilities[second])


def test_a_run_of_both_stages_does_not_go_on_with_the_main_model_alone(
    run: Run, routing_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.csv"
    bundle = read_bundle(routing_bundle)
    terms = Terms(bundle.sha256, by_hash=False)
    with pytest.raises(KeyboardInterrupt), opened_journal(out, terms, resume=False):
        raise KeyboardInterrupt
    result = run("classify", photos, "--model", routing_bundle, "--out", out, "--resume", "--main-only")
    assert result.exit_code == 1
    assert "started with another bundle" in result.output


def test_without_out_a_table_is_printed(run: Run, tiny_bundle: Path, photos: Path) -> None:
    result = run("classify", photos / "a.png", photos / "d.webp", "--model", tiny_bundle)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["picture", "most", "likely", "second", "decided", "by"]
    assert [Path(line.split()[0]).name for line in lines[1:]] == ["a.png", "d.webp"]
    assert all(line.count("%") == 2 for line in lines[1:])


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nowhere.jpg",),
        (".", "--batch-size", "0"),
    ],
    ids=["no path", "no such file", "no batch"],
)
def test_wrong_usage_exits_with_2(run: Run, words: tuple[str, ...]) -> None:
    assert run("classify", *words).exit_code == 2


def test_a_folder_without_pictures_is_wrong_usage(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    result = run("classify", tmp_path, "--model", tiny_bundle)
    assert result.exit_code == 2
    assert "no pictures below" in result.output


@pytest.mark.parametrize(
    ("out", "status", "words"),
    [("rows.txt", 2, "expected .csv, .jsonl or .parquet"), ("none/rows.csv", 1, "cannot be written")],
)
def test_an_output_that_cannot_be_is_one_sentence(
    run: Run, tiny_bundle: Path, photos: Path, out: str, status: int, words: str
) -> None:
    result = run("classify", photos, "--model", tiny_bundle, "--out", photos.parent / out)
    assert result.exit_code == status
    assert words in result.output


def test_a_name_that_is_no_text_is_classified(tiny_bundle: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    draw("sky", 1).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    command = [sys.executable, "-m", "canonistia", "classify", str(tmp_path), "--model", str(tiny_bundle)]
    shown = subprocess.run(command, capture_output=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert b"caf\\udce9.png" in shown.stdout
    for ending in ("csv", "jsonl"):
        out = tmp_path / f"rows.{ending}"
        assert subprocess.run([*command, "--out", str(out)], capture_output=True, check=False).returncode == 0
    (row,) = (json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines())
    assert Path(row["path"]).name == name
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert [Path(row["path"]).name for row in csv.DictReader(file)] == [name]


def test_a_broken_bundle_is_one_sentence(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("[]")
    result = run("classify", photos, "--model", tmp_path)
    assert result.exit_code == 1
    assert "not a bundle's manifest" in result.output


def test_ctrl_c_leaves_rows_to_go_on_from_and_nothing_half_written(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    large = Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8))
    large.save(folder / "0.png")
    for number in range(1, 400):
        os.link(folder / "0.png", folder / f"{number}.png")
    command = [sys.executable, "-m", "canonistia", "classify", str(folder), "--model", str(tiny_bundle)]
    with started([*command, "--out", str(tmp_path / "rows.csv")], stderr=subprocess.PIPE) as process:
        wait_until((tmp_path / "rows.csv.progress").exists, 60, "the first row")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    # 1 from click; by the signal itself when it fell into an import, where Python remembers it until the end.
    assert process.returncode in (1, -signal.SIGINT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "rows.csv.progress"]
    assert process.returncode != 1 or b"--resume" in said


def test_evaluate_prints_the_contracted_object(run: Run, tiny_bundle: Path, tiny_data: Path) -> None:
    result = run("evaluate", tiny_data / "validation", "--model", tiny_bundle, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["pictures"] == 24
    assert report["classes"] == list(CLASSES)
    for stage in ("main", "cascade"):
        assert set(report[stage]) == {"top1", "top1_interval", "top2", "top2_interval", "ece", "seed_score"}
        low, high = report[stage]["top1_interval"]
        assert low <= report[stage]["top1"] <= high
    assert 0 <= report["routed"] <= 1
    assert 0 <= report["unsure"] <= 1
    assert 1 <= report["cost"] < 10
    assert set(report["answer_sets"]) == {"0.90", "0.95", "0.99"}
    assert all(1 <= sets["mean_size"] <= 3 for sets in report["answer_sets"].values())
    assert sum(map(sum, report["confusion"])) == 24
    assert sum(report["confusion"][i][i] for i in range(3)) / 24 == pytest.approx(report["cascade"]["top1"])
    assert set(report["per_class"]) == set(CLASSES)
    assert report["bundle"]["name"] == "tiny"
    assert len(report["bundle"]["sha256"]) == 64


def test_evaluate_speaks_to_people_too(run: Run, tiny_bundle: Path, tiny_data: Path) -> None:
    result = run("evaluate", tiny_data / "validation", "--model", tiny_bundle)
    assert "cascade" in result.stdout
    assert "routed" in result.stdout


def test_evaluate_tells_pictures_from_outside_by_their_doubt(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (60, 72, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    words = ("evaluate", tiny_data / "validation", "--model", tiny_bundle, "--outside", tmp_path)
    outside = json.loads(run(*words, "--json").stdout)["outside"]
    assert outside["pictures"] == 12
    assert outside["auroc_of_doubt"] > 0.9
    assert 0 <= outside["auroc_of_main_confidence"] <= 1
    assert "12 out-of-distribution pictures: " in run(*words).output


def test_evaluate_refuses_an_empty_outside(run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    result = run("evaluate", tiny_data / "validation", "--model", tiny_bundle, "--outside", tmp_path)
    assert result.exit_code == 2
    assert "no pictures below" in result.output


def test_evaluate_draws_three_pictures(run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    run("evaluate", tiny_data / "validation", "--model", tiny_bundle, "--plots", tmp_path / "plots")
    for name in ("confusion.png", "reliability.png", "routing.png"):
        with Image.open(tmp_path / "plots" / name) as picture:
            assert min(picture.size) > 300
            assert len(set(picture.convert("L").tobytes())) > 10


def test_evaluate_refuses_a_data_set_with_splits(run: Run, tiny_bundle: Path, tiny_data: Path) -> None:
    result = run("evaluate", tiny_data, "--model", tiny_bundle)
    assert result.exit_code == 1
    assert "evaluate one split" in result.output


def test_evaluate_refuses_unknown_classes(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "coast").mkdir()
    draw("sky", 1).save(tmp_path / "coast" / "a.png")
    result = run("evaluate", tmp_path, "--model", tiny_bundle)
    assert result.exit_code == 1
    assert "does not know: coast" in result.output


def test_evaluate_refuses_a_picture_that_it_cannot_read(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "sky").mkdir()
    (tmp_path / "sky" / "a.jpg").write_bytes(b"")
    result = run("evaluate", tmp_path, "--model", tiny_bundle)
    assert result.exit_code == 1
    assert "a.jpg: is empty" in result.output


def test_models_lists_name_classes_size_and_accuracy(
    run: Run, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANONISTIA_MODELS", str(tiny_bundle.parent))
    result = run("models")
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("tiny:")]
    assert "3 classes" in line
    assert "MB" in line
    assert "top 1" in line
