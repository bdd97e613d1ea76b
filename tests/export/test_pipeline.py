"""Whole pipelines on folds of a data set: sources left out, and random splits."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cascade.errors import CanonistiaError
from cascade.images.layout import read_data_set
from export.commands.pipeline import random_folds, read_steps, run_pipeline, source_folds, summary
from tests.conftest import CLASSES, LIGHT, Run, write_class_folders, write_data_set
from trainers.data.manifest import write_pictures

STEPS = """steps = [
    "train-main {data} --out {run}/main --no-report OPTIONS",
    "train-sub {data} --main {run}/main --out {run}/subs OPTIONS",
    "export --main {run}/main --subs {run}/subs --data {data} --out {run}/bundle",
]
"""


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest of a split data set at home, and of two other sources for training."""
    folder = tmp_path_factory.mktemp("sources")
    write_data_set(folder / "home", 6, 6)
    write_class_folders(folder / "lake", {"sky": 16, "dots": 15}, 900)
    write_class_folders(folder / "wood", dict.fromkeys(CLASSES, 11), 1900)
    write_class_folders(folder / "few", dict.fromkeys(CLASSES, 2), 2900)
    home = read_data_set(folder / "home")
    away = [replace(p, split="training") for name in ("few", "lake", "wood") for p in read_data_set(folder / name)]
    sourced = [replace(p, source=p.path.relative_to(folder).parts[0]) for p in (*home, *away)]
    write_pictures(folder / "all.csv", sourced)
    return folder / "all.csv"


def test_each_source_without_a_validation_split_is_left_out_once(joined: Path) -> None:
    folds = {fold.name: fold for fold in source_folds(joined)}
    assert list(folds) == ["lake", "wood"]
    for name, fold in folds.items():
        assert {picture.source for picture in fold.scored} == {name}
        assert {picture.source for picture in fold.given} == {"few", "home", "lake", "wood"} - {name}
        assert sum(picture.split == "validation" for picture in fold.given) == 18


def test_random_folds_take_so_many_of_each_class_and_score_the_others(joined: Path) -> None:
    (fold,) = random_folds(joined, 1, 10, seed=3)
    assert len(fold.given) == 30
    assert {picture.split for picture in fold.given} == {"training"}
    assert not {picture.path for picture in fold.given} & {picture.path for picture in fold.scored}


def test_the_command_trains_without_a_source_scores_on_it_and_goes_on_where_it_stopped(
    run: Run, joined: Path, tmp_path: Path
) -> None:
    pipeline, out = tmp_path / "steps.toml", tmp_path / "runs"
    pipeline.write_text(steps := STEPS.replace("OPTIONS", " ".join(map(str, LIGHT))))
    words = ("benchmark-cascade", joined, "--leave-source-out", "--pipeline", pipeline, "--out", out, "--json")
    first = run(*words)
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)
    assert {name: report["pictures"] for name, report in found["folds"].items()} == {"lake": 31, "wood": 33}
    tops = [report["cascade"]["top1"] for report in found["folds"].values()]
    assert found["mean"]["cascade"]["top1"] == pytest.approx(sum(tops) / 2)
    composed = [report["composed"] for report in found["folds"].values()]
    assert list(composed[0]) == ["side_by_side", "stacked", "inset", "horizon", "diagonal"]
    assert [one["inset"]["pictures"] for one in composed] == [31, 33]
    assert found["mean"]["composed"]["inset"] == pytest.approx(sum(one["inset"]["both_named"] for one in composed) / 2)
    assert "lake/" not in (out / "lake" / "data.csv").read_text()
    before = (out / "wood" / "bundle" / "bundle.json").stat().st_mtime_ns
    assert json.loads(run(*words).stdout) == found
    assert (out / "wood" / "bundle" / "bundle.json").stat().st_mtime_ns == before
    pipeline.write_text(steps.replace("--epochs 1", "--epochs 2"))
    assert "was begun with other steps" in run(*words).output


def test_a_step_that_was_done_is_not_repeated(joined: Path, tmp_path: Path) -> None:
    fold = source_folds(joined)[0]
    called: list[str] = []

    def call(words: list[str]) -> None:
        called.append(words[0])
        if len(called) == 2:
            raise CanonistiaError("the disk is full")

    for expected in ("the disk is full", "bundle"):
        with pytest.raises(CanonistiaError, match=expected):
            list(run_pipeline([fold], ("one", "two", "three"), tmp_path, call))
    assert called == ["one", "two", "two", "three"]


def test_the_gain_is_that_of_pairs_and_means_count_folds_alike() -> None:
    def report(name: str, pictures: int, top1: float, gained: int, lost: int) -> dict[str, object]:
        figures = {"top1": top1, "top2": 1.0, "ece": 0.1}
        plain = {"routed": 0.2, "cost": 1.5, "unsure": 0.1, "pictures": pictures}
        return {
            "name": name,
            "main": figures,
            "cascade": figures,
            **plain,
            "second_stage": {"gained": gained, "lost": lost},
        }

    found = summary([report("a", 900, 0.9, 30, 5), report("b", 100, 0.5, 0, 5)])
    assert found["mean"]["cascade"]["top1"] == pytest.approx(0.7)
    assert found["gain"]["top1"] == pytest.approx(0.02)
    # Wald's interval for a difference of paired shares: sqrt(b + c - (b - c)^2 / n) / n.
    assert found["gain"]["interval"][1] - 0.02 == pytest.approx(1.96 * (40 - 400 / 1000) ** 0.5 / 1000, rel=1e-3)


def test_what_cannot_be_left_out_is_said(run: Run, joined: Path, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(CanonistiaError, match="names 1 source"):
        source_folds(tiny_data)
    lines = [line for line in joined.read_text().splitlines() if not ("sky" in line and "lake" not in line)]
    without = joined.with_name("without.csv")
    without.write_text("\n".join(lines))
    with pytest.raises(CanonistiaError, match="no picture of sky is left without the source lake"):
        source_folds(without)
    words = ("benchmark-cascade", joined, "--leave-source-out")
    assert "needs --out" in run(*words).output
    assert "leave --main-backbone out" in run(*words, "--out", tmp_path, "--main-backbone", "resnet18").output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps = 3", "no list of commands"),
        ("steps = [", "cannot be read as TOML"),
        ('steps = ["train-main {data} --out {run}/main"]', "makes {run}/bundle"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "steps.toml"
    path.write_text(text)
    with pytest.raises(CanonistiaError) as caught:
        read_steps(path)
    assert said in str(caught.value)


def test_an_unknown_step_is_refused(run: Run, joined: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "steps.toml"
    pipeline.write_text('steps = ["fly {data} {run}/bundle"]')
    words = ("benchmark-cascade", joined, "--leave-source-out", "--pipeline", pipeline, "--out", tmp_path / "runs")
    result = run(*words)
    assert result.exit_code == 2
    assert "'fly', which is no command" in result.output
