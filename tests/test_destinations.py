"""An output that cannot be written is said first, in one sentence, by every command that has one."""

import os
from pathlib import Path

import pytest

from tests.conftest import Run

# Of each command its words without the output; no model or run named here exists, so nothing of the work can begin.
FILES = {
    "classify --out": ("classify", "{data}", "--model", "none", "--out", "{out}.csv"),
    "classify --report": ("classify", "{data}", "--model", "none", "--report", "{out}.html"),
    "check-data --fix": ("check-data", "{data}", "--fix", "{out}.csv"),
    "find-lr --plot": ("find-lr", "{data}", "--plot", "{out}.png"),
}
FOLDERS = {
    "classify --sort-into": ("classify", "{data}", "--model", "none", "--sort-into", "{out}"),
    "evaluate --plots": ("evaluate", "{data}", "--model", "none", "--plots", "{out}"),
    "train-main --out": ("train-main", "{data}", "--out", "{out}"),
    "train-sub --out": ("train-sub", "{data}", "--main", "{data}", "--out", "{out}"),
    "new-class --out": ("new-class", "{data}", "--main", "{data}", "--subs", "{data}", "--out", "{out}"),
    "export --out": ("export", "--main", "{data}", "--subs", "{data}", "--data", "{data}", "--out", "{out}"),
    "tune --plot": ("tune", "none", "{data}", "--plot", "{out}/plot.png"),
}


def refused(run: Run, words: tuple[str, ...], data: Path, out: Path) -> str:
    done = run(*(word.format(data=data, out=out) for word in words))
    assert done.exit_code == 2, done.output
    sentence = done.output.splitlines()[-1]
    assert sentence.startswith("Error: Invalid value for ")
    assert "cannot be written: " in sentence
    return sentence


@pytest.mark.parametrize("words", FILES.values(), ids=FILES)
def test_a_file_needs_a_folder_and_is_none(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert "there is no folder" in refused(run, words, data, tmp_path / "nowhere" / "x")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(run, words, data, tmp_path / "file" / "x")
    for ending in (".csv", ".html", ".png"):
        (tmp_path / f"taken{ending}").mkdir()
    assert "it is a folder" in refused(run, words, data, tmp_path / "taken")


@pytest.mark.parametrize("words", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_is_not_made_inside_of_a_file(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(run, words, data, tmp_path / "file" / "x")
    assert "is not a folder" in refused(run, words, data, tmp_path / "file")


@pytest.mark.parametrize("words", [*FILES.values(), *FOLDERS.values()], ids=[*FILES, *FOLDERS])
def test_a_folder_that_may_not_be_written_to_is_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    # The administrator may write everywhere.
    monkeypatch.setattr("cascade.destinations.os.access", lambda path, mode: mode == os.R_OK)
    assert "may not be written to" in refused(run, words, data, tmp_path / "x")


@pytest.mark.parametrize("command", ["tune", "quantize"])
def test_a_bundle_that_may_not_be_written_to_is_said_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, command: str
) -> None:
    monkeypatch.setattr("cascade.destinations.os.access", lambda path, mode: os.fspath(path) != str(tiny_bundle))
    words = ("--plot", tmp_path / "plot.png") if command == "tune" else ()
    done = run(command, tiny_bundle, tmp_path, *words)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: the folder {tiny_bundle} may not be written to")
