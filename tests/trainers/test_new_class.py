"""A cascade that grows by a class, without training the other submodels again."""

import json
import shutil
from pathlib import Path

import canonistia
from tests.conftest import Run, draw, write_class_folders, write_data_set
from trainers.runs.submodels import class_run

LIGHT = ("--backbone", "timm/test_resnet", "--no-pretrained", "--size", 32, "--tracker", "none", "--epochs", 2)
QUICK = ("--tracker", "none", "--epochs", 2)


def grown(folder: Path, out: Path) -> Path:
    """Return a copy of a data set with one class more."""
    shutil.copytree(folder, out)
    write_class_folders(out / "training", {"plain": 3}, 0)
    write_class_folders(out / "validation", {"plain": 5}, 500)
    return out


def test_a_class_is_added_and_the_other_submodels_are_the_same_files(run: Run, tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data", training=3, validation=5)
    assert run("train-main", data, "--out", tmp_path / "main", *LIGHT).exit_code == 0
    assert run("train-sub", data, "--main", tmp_path / "main", "--out", tmp_path / "subs", *LIGHT).exit_code == 0
    more = grown(data, tmp_path / "more")
    assert run("train-main", more, "--out", tmp_path / "main2", *LIGHT).exit_code == 0
    arguments = ("new-class", more, "--main", tmp_path / "main2", "--subs", tmp_path / "subs", *QUICK)
    done = run(*arguments, "--out", tmp_path / "subs2")
    assert done.exit_code == 0, done.output
    assert "trained plain and kept 3 submodels" in done.output
    for label in ("dots", "rows", "sky"):
        old, new = (class_run(tmp_path / name, label) / "last.safetensors" for name in ("subs", "subs2"))
        assert old.read_bytes() == new.read_bytes()
    out = tmp_path / "models" / "grown"
    arguments = ("--main", tmp_path / "main2", "--subs", tmp_path / "subs2", "--data", more, "--out", out)
    exported = run("export", *arguments)
    assert exported.exit_code == 0, exported.output
    engine = canonistia.load(str(out), threads=1)
    assert engine.classes == ("dots", "plain", "rows", "sky")
    assert engine.classify([draw("plain", 900)])[0].label_1 in engine.classes

    # One of them trained again, and nothing else.
    before = (class_run(tmp_path / "subs2", "sky") / "last.safetensors").read_bytes()
    again = ("train-sub", more, "--main", tmp_path / "main2", "--out", tmp_path / "subs2", *LIGHT)
    once = run(*again, "--class", "rows", "--overwrite", "--epochs", 3)
    assert once.exit_code == 0, once.output
    assert (class_run(tmp_path / "subs2", "sky") / "last.safetensors").read_bytes() == before
    assert json.loads((class_run(tmp_path / "subs2", "rows") / "summary.json").read_text())["epochs"] == 3
    assert run("export", *arguments, "--overwrite").exit_code == 0


def test_growth_that_cannot_be_is_one_sentence_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data", training=3, validation=2)
    assert run("train-main", data, "--out", tmp_path / "main", *LIGHT).exit_code == 0
    assert run("train-sub", data, "--main", tmp_path / "main", "--out", tmp_path / "subs", *LIGHT).exit_code == 0
    arguments = ("--main", tmp_path / "main", "--subs", tmp_path / "subs", "--out", tmp_path / "subs2", *QUICK)
    same = run("new-class", data, *arguments)
    assert same.exit_code == 1
    assert "has no class that" in same.output
    unsplit = run("new-class", data / "training", *arguments)
    assert unsplit.exit_code == 1
    assert "is not split, expected splits" in unsplit.output
    other = run("new-class", grown(data, tmp_path / "more"), *arguments)
    assert other.exit_code == 1
    assert "the run" in other.output
    assert not (tmp_path / "subs2").exists()
