"""Names and texts of strangers do not steer a terminal, and stay as they are in rows."""

import json
import shutil
from pathlib import Path

import pytest

from cascade.errors import CanonistiaError, PictureError, UsageError
from cascade.evaluation.text import describe
from cascade.images.names import name_of
from cascade.terminal import printable
from tests.conftest import Run, draw

STEERING = {
    "a colour": "\x1b[31mred",
    "a title": "\x1b]0;title\x07",
    "eight bits": "\x9b2J",
    "a line": "one\ntwo\r\vthree",
    "a line of Unicode": "one\u2028two\u2029three\x85",
    "backwards": "photo\u202egpj.exe",
    "isolated": "\u2066a\u2069\u200f\u061c",
    "hidden": "a\u00adb\ufeffc\U000e0041",
    "no text": "caf\udce9",
    "deleted": "a\x7f\x08\x00",
}


@pytest.mark.parametrize("name", STEERING)
def test_what_steers_a_terminal_is_escaped(name: str) -> None:
    shown = printable(STEERING[name])
    assert "\\" in shown
    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize("text", ["plain.jpg", "forêt", "写真", "می‌خواهم", "👩‍🌾.png", "9.41\u202fAM.png", "a\\b", ""])
def test_names_of_every_language_stay(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("kind", [CanonistiaError, UsageError, PictureError])
def test_an_error_is_one_printable_line(kind: type[CanonistiaError]) -> None:
    for text in STEERING.values():
        assert str(kind(f"{text} cannot be read")).isprintable()


def nothing_steers(output: str) -> bool:
    return all(line.isprintable() for line in output.split("\n"))


def test_the_table_of_classify_is_printable_and_its_rows_give_the_names_back(
    run: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    names = {f"{text.replace(chr(0), '')}.png" for text in STEERING.values()}
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in names:
        draw("sky", 1).save(folder / name)
    (folder / "\x1b[2J.jpg").write_bytes(b"\xff\xd8\xff no picture")
    shown = run("classify", folder, "--model", tiny_bundle)
    assert shown.exit_code == 3
    assert nothing_steers(shown.output)
    assert len(shown.stdout.splitlines()) == 2 + len(names)
    sorting = run("classify", folder, "--model", tiny_bundle, "--sort-into", tmp_path / "sorted", "--dry-run")
    assert nothing_steers(sorting.output)
    run("classify", folder, "--model", tiny_bundle, "--out", tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    found = {name_of(row["path"]).rpartition("/")[2] for row in rows}
    assert found == {*names, "\x1b[2J.jpg"}


@pytest.fixture
def painted(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a bundle whose name, class and split are full of what steers a terminal."""
    folder = tmp_path / "models" / "\x1b[31mpainted"
    shutil.copytree(tiny_bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["name"] = manifest["measured"]["split"] = "".join(STEERING.values()).replace("\udce9", "")
    manifest["classes"][2] = manifest["submodels"][2]["label"] = "sky\x1b[2J\u202e"
    (folder / "bundle.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("CANONISTIA_MODELS", str(folder.parent))
    return folder


def test_the_texts_of_a_bundle_are_printable(run: Run, painted: Path, tmp_path: Path, tiny_data: Path) -> None:
    assert nothing_steers(run("models").output)
    draw("sky", 1).save(tmp_path / "a.png")
    assert nothing_steers(run("classify", tmp_path / "a.png", "--model", painted).output)
    assert nothing_steers(run("evaluate", tiny_data / "validation", "--model", painted).output)
    manifest = json.loads((painted / "bundle.json").read_text()) | {"\x1b[2J": 1}
    (painted / "bundle.json").write_text(json.dumps(manifest))
    refused = run("classify", tmp_path / "a.png", "--model", painted)
    assert refused.exit_code == 1
    assert nothing_steers(refused.output)
    assert nothing_steers(run("models").output)


def test_the_report_of_an_evaluation_escapes_its_classes() -> None:
    label = "sky\x1b[2J\n"
    accuracy = {"top1": 1.0, "top1_interval": (0, 1), "top2": 1.0, "top2_interval": (0, 1), "ece": 0.0, "seed_score": 1}
    report = {
        "bundle": {"name": label}, "pictures": 2, "ece_bins": 15, "main": accuracy, "cascade": accuracy,
        "main_before_calibration": {"ece": 0.0}, "routed": 0.0, "cost": 1.0, "unsure": 0.0, "both": 0.0,
        "answer_sets": {}, "classes": [label, "b"], "confusion": [[1, 1], [0, 0]],
        "per_class": {name: {"pictures": 1, "top1": 1.0, "top1_interval": (0, 1)} for name in (label, "b")},
    }  # fmt: skip
    assert nothing_steers(describe(report))


def test_what_a_data_set_is_called_is_printable(run: Run, tmp_path: Path) -> None:
    for label in ("sea\u202e", "sky"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(2):
            draw(label, number).save(tmp_path / "data" / label / f"\x1b[{number}m.png")
    (tmp_path / "data" / "sky" / "\x1b[31mtorn\n.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = run("check-data", tmp_path / "data")
    assert result.exit_code == 0
    assert nothing_steers(result.output)


@pytest.mark.parametrize("words", [("classify", "\x1b[2J.jpg"), ("evaluate", "\x1b[2J"), ("check-data", "a\u202e")])
def test_wrong_usage_is_printable(run: Run, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert nothing_steers(result.output)
