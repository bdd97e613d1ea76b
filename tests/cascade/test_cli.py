"""classify, evaluate and models, as a person calls them."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import canonistia
import cascade.progress
from cascade.bundle.reading import read_bundle
from cascade.images.decoding import decode
from cascade.inputs.item import file_item
from cascade.outputs.journal import Terms, opened_journal
from cascade.outputs.rows import Answered, Row
from tests.conftest import CLASSES, Run, draw
from tests.waiting import started, wait_until

COLUMNS = [
    "path",
    "label_1",
    "probability_1",
    "label_2",
    "probability_2",
    "stage",
    "unsure",
    "both",
    "accepted",
    "error",
]


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
    main = engine.run(pictures).main_alone  # (N, K)
    for row, probabilities in zip(rows, main, strict=True):
        first, second = np.argsort(-probabilities)[:2]
        assert (row["stage"], row["label_1"], row["label_2"]) == ("main", engine.classes[first], engine.classes[second])
        shown = (row["probability_1"], row["probability_2"])
        assert shown == pytest.approx((probabilities[first], probabilities[second]))


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
    [("rows.txt", 2, "expected .csv, .jsonl or .parquet"), ("none/rows.csv", 2, "cannot be written")],
)
def test_an_output_that_cannot_be_is_one_sentence(
    run: Run, tiny_bundle: Path, photos: Path, out: str, status: int, words: str
) -> None:
    result = run("classify", photos, "--model", tiny_bundle, "--out", photos.parent / out)
    assert result.exit_code == status
    assert words in result.output


def read_rows(path: Path) -> list[str]:
    """Return the paths of a file of rows, as a stranger's reader finds them."""
    pandas = pytest.importorskip("pandas")
    read = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet, ".jsonl": partial(pandas.read_json, lines=True)}
    return list(read[path.suffix.lower()](path)["path"])


@pytest.mark.parametrize("ending", [".CSV", ".JsonL", ".PARQUET"])
def test_a_name_that_is_no_text_has_one_spelling_that_every_reader_takes(
    run: Run, tiny_bundle: Path, tmp_path: Path, ending: str
) -> None:
    names = [b"caf\xe9.png", rb"caf\xe9.png", b"bell\x07.png", "é\\x.png".encode()]
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, name in enumerate(names):
        draw("sky", number).save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(photos / os.fsdecode(name))
    out = tmp_path / f"rows{ending}"
    words = ("classify", photos, "--model", tiny_bundle, "--out", out)
    assert run(*words, "--sort-into", tmp_path / "sorted").exit_code == 0
    found = [
        re.sub(rb"\\x([0-9a-f]{2})", lambda sign: bytes.fromhex(sign[1].decode()), p.encode()) for p in read_rows(out)
    ]
    assert sorted(found) == sorted(os.fsencode(photos) + b"/" + name for name in names)
    assert {b"caf\xe9.png", b"bell\x07.png"} <= {os.fsencode(path.name) for path in (tmp_path / "sorted").glob("*/*")}
    table = run("classify", photos, "--model", tiny_bundle).stdout
    assert r"caf\xe9.png" in table
    assert r"caf\x5cxe9.png" in table
    assert "\x07" not in table


def test_a_run_resumes_at_names_that_are_no_text(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    photo, out = tmp_path / os.fsdecode(b"caf\xe9.png"), tmp_path / "rows.csv"
    photo.write_bytes(b"not read again")
    item = file_item(photo)
    kept = Row(item.name, "sky", 0.9, "rows", 0.1, "main", False)
    terms = Terms(read_bundle(tiny_bundle).sha256, by_hash=False)

    def stopped_run() -> None:
        with opened_journal(out, terms, resume=False) as journal:
            journal.add(Answered(item, kept))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_run()
    assert run("classify", photo, "--model", tiny_bundle, "--out", out, "--resume").exit_code == 0
    assert r"caf\xe9.png,sky,0.9,rows,0.1,main,false," in out.read_text("utf-8")


def test_what_is_passed_over_is_counted_and_excluded(run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("notes.txt", ".hidden.png", "a_small.png"):
        (photos / name).write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(photos / "a.png", "deep/a.png")
        archive.write(photos / "a.png", "kept/a.png")
        archive.writestr("readme.txt", "x")
    page, out = tmp_path / "report.html", tmp_path / "rows.csv"
    words = (
        "classify",
        photos,
        tmp_path / "more.zip",
        "--exclude",
        "deep",
        "--exclude",
        "*_small.*",
        "--exclude",
        "[be].*",
    )
    done = run(*words, "--model", tiny_bundle, "--report", page, "--out", out)
    counts = "8 entries passed over: 5 excluded, 2 .txt, 1 hidden"
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [f"3 rows in {out}", counts]
    assert counts in page.read_text()


@pytest.mark.parametrize("exclude", [(), ("--exclude", "*.png")])
def test_a_folder_without_pictures_says_what_was_passed_over(
    run: Run, tmp_path: Path, exclude: tuple[str, ...]
) -> None:
    for name in ("a.txt", "b.mp4", *(("c.png",) if exclude else ())):
        (tmp_path / name).write_bytes(b"x")
    done = run("classify", tmp_path, "--model", "nowhere", *exclude)
    assert done.exit_code == 2
    assert f"{2 + bool(exclude)} entries passed over: 1 " in done.output


def test_evaluate_counts_what_is_passed_over_and_takes_the_manifest_of_check_data(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "validation" / "sky" / "notes.txt").write_text("x")
    by_folder = run("evaluate", data / "validation", "--model", tiny_bundle, "--json")
    assert by_folder.stderr == f"{data / 'validation'}: 1 entry passed over: 1 .txt\n"
    assert run("check-data", data, "--fix", tmp_path / "m.CSV").exit_code == 0
    by_manifest = run("evaluate", tmp_path / "m.CSV", "--model", tiny_bundle, "--json")
    assert json.loads(by_manifest.stdout) == json.loads(by_folder.stdout)


@pytest.mark.parametrize("command", ["classify", "evaluate"])
def test_without_a_terminal_a_line_is_written_every_minute(
    run: Run, tiny_bundle: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(cascade.progress, "EVERY", 0.0)
    said = run(command, tiny_data / "validation", "--model", tiny_bundle).stderr.splitlines()
    assert re.fullmatch(command + r": 24 of 24 pictures, [\d.,]+ per second, 0:00:00 left", said[-1])


def test_the_command_to_go_on_with_can_be_pasted(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cascade.batch.job.check_inputs", stopped)
    out = photos.parent / "my rows'.csv"
    line = run("classify", photos, "--out", out).output.splitlines()[1]
    assert shlex.split(line.partition("run again with ")[2]) == ["--resume", "--out", str(out)]


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
        wait_until((tmp_path / "rows.csv.progress").exists, what="the first row")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
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
