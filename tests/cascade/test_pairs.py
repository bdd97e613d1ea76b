"""Measuring pictures that show two of the classes."""

import json
from pathlib import Path

import numpy as np
import pytest

from cascade.errors import CanonistiaError
from cascade.evaluation.metrics import exact_interval
from cascade.evaluation.pairs import pair_figures, read_pairs
from cascade.rules.both import Both
from cascade.rules.cascade import known_answers, run_cascade
from tests.cascade.test_three_kinds import changed, rules
from tests.conftest import CLASSES, Run, draw

FIRST = Both(weights={"second_submodel": 1.0}, threshold=0.0, false_mark_rate=0.02)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Return a table of four pictures."""
    (tmp_path / "two").mkdir()
    lines = ["class_b,path,note,class_a"]
    for number, (a, b) in enumerate([("dots", "rows"), ("rows", "sky"), ("sky", "dots"), ("rows", "dots")]):
        draw(a, number + 70).save(tmp_path / "two" / f"{number}.png")
        lines.append(f"{b},two/{number}.png,x,{a}")
    (tmp_path / "two.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "two.csv"


def test_a_picture_counts_as_marked_if_the_two_right_classes_are_named() -> None:
    main = np.tile([0.6, 0.3, 0.1], (4, 1))
    submodels = np.tile([0.9, 0.8, 0.1], (4, 1))
    submodels[3, 1] = 0.3  # named and not marked
    output = run_cascade(rules(both=FIRST), main, np.ones(4), known_answers(submodels))
    shown = np.array([[0, 1], [1, 0], [0, 2], [0, 1]])
    figures = pair_figures(output, shown)
    assert (figures["pictures"], figures["both_named"], figures["both_marked"]) == (4, 0.75, 0.5)
    assert figures["both_marked_interval"] == exact_interval(2, 4)


def test_evaluate_measures_pairs_beside_the_pictures_of_one_class(
    run: Run, routing_bundle: Path, tiny_data: Path, pairs: Path, tmp_path: Path
) -> None:
    everything = {"weights": {"main_gap": 0.0}, "threshold": 0.0, "false_mark_rate": 0.5}
    accept = {"threshold": 0.5, "accuracy": 0.9, "confidence": 0.95, "pictures": 30, "accepted": 29, "mistakes": 0}
    bundle = changed(routing_bundle, tmp_path / "all", both=everything, accept=accept)
    words = ("evaluate", tiny_data / "validation", "--model", bundle, "--pairs", pairs)
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    found = report["pairs"]
    names = [f"{name}{end}" for name in ("both_named", "both_marked", "false_marks") for end in ("", "_interval")]
    assert list(found) == ["pictures", *names]
    assert found["pictures"] == 4
    assert found["false_marks"] == report["both"] == pytest.approx(1 - report["unsure"])
    accepted = report["accepted"]
    assert accepted["share"] == accepted["pictures"] / report["pictures"]
    assert accepted["accuracy"] == pytest.approx(1 - accepted["mistakes"] / accepted["pictures"])
    shown = run(*words).stdout
    assert "4 pictures of two classes: both named" in shown
    assert "\naccepted " in shown


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            "path,class_a,class_b\na.png,dots,moon\n",
            "has classes that the bundle does not know; it knows dots, rows, sky",
        ),
        ("path,class_a,class_b\na.png,dots,dots\n", "has rows with the same class twice; name the two classes"),
        ("path,class_a\na.png,dots\n", "lacks the column class_b; expected path, class_a, class_b"),
        ("path,class_a,class_b\nb.png,dots,sky\n", "has missing files; correct the paths, which are relative to"),
        ("path,class_a,class_b\n", "has no rows; expected one per picture"),
    ],
)
def test_a_bad_table_of_pairs_is_one_sentence(tmp_path: Path, table: str, sentence: str) -> None:
    draw("sky", 1).save(tmp_path / "a.png")
    (tmp_path / "two.csv").write_text(table)
    with pytest.raises(CanonistiaError) as refused:
        read_pairs(tmp_path / "two.csv", CLASSES)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
