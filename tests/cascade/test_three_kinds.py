"""The three kinds of answer, and which are accepted: the rules, and the same in every output."""

import csv
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import canonistia
import cascade.cli
from cascade.bundle.reading import BundleError, read_manifest
from cascade.inference.engine import Engine
from cascade.inference.loading import load_engine
from cascade.inference.prediction import Prediction
from cascade.outputs.rows import COLUMNS
from cascade.rules.accept import Accept
from cascade.rules.another_class import another_class
from cascade.rules.both import QUANTITIES, Both, both_asked, quantities
from cascade.rules.cascade import CascadeRules, known_answers, run_cascade
from cascade.rules.decision import Product
from cascade.rules.routing import Confidence
from cascade.rules.unsure import Unsure
from tests.conftest import CLASSES, Run, draw
from tests.webapps import application, encoded, upload

MAIN = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.95, 0.04, 0.01]])
SUBMODELS = np.array([[0.9, 0.8, 0.1], [0.9, 0.01, 0.1], [0.9, 0.8, 0.1]])
ACCEPT = {"accuracy": 0.99, "confidence": 0.95, "pictures": 300, "accepted": 299, "mistakes": 0}


def rules(**more: Any) -> CascadeRules:
    """Return rules that route what is below 0.9, ask about two classes, and mark what is farther than 2."""
    unsure = Unsure(distance_above=2.0, submodels_below=0.0, false_alarm_rate=0.02)
    return CascadeRules(Confidence(threshold=0.9), 2, Product(), unsure, **more)


SECOND = Both(weights={"second_submodel": 1.0}, threshold=0.0, false_mark_rate=0.02)


def test_both_needs_the_submodels_and_a_score_at_the_threshold() -> None:
    output = run_cascade(rules(both=SECOND), MAIN, np.ones(3), known_answers(SUBMODELS))
    assert output.routed.tolist() == [True, True, False]
    assert output.both.tolist() == [True, False, False]
    assert output.both_margin[0] == pytest.approx(np.log(0.8 / 0.2))
    assert output.both_margin[2] == -np.inf
    at_threshold = Both(weights={"second_submodel": 1.0}, threshold=float(output.both_margin[0]), false_mark_rate=0.02)
    assert run_cascade(rules(both=at_threshold), MAIN, np.ones(3), known_answers(SUBMODELS)).both[0]
    without = run_cascade(rules(), MAIN, np.ones(3), known_answers(SUBMODELS))
    assert not without.both.any()
    assert np.array_equal(without.probabilities, output.probabilities)  # the mark changes no probability


def test_unsure_wins_over_both_and_is_never_accepted() -> None:
    accept = Accept(threshold=0.5, **ACCEPT)
    far = run_cascade(rules(both=SECOND, accept=accept), MAIN, np.array([3.0, 1, 1]), known_answers(SUBMODELS))
    assert far.both_margin[0] >= 0
    assert (far.unsure[0], far.both[0], far.accepted[0]) == (True, False, False)
    assert far.accepted[1:].all()


def test_an_answer_is_accepted_from_the_threshold_on() -> None:
    probabilities = np.array([[0.9, 0.1], [0.89, 0.11], [0.1, 0.9]])
    accepted = Accept(threshold=0.9, **ACCEPT).accepts(probabilities, np.array([False, False, True]))
    assert accepted.tolist() == [True, False, False]


def test_quantities_are_finite_for_certain_and_for_missing_answers() -> None:
    main = np.array([[1.0, 0.0, 0.0], [0.4, 0.3, 0.3]], dtype=np.float32)
    submodels = np.array([[1.0, 0.0, np.nan], [0.5, np.nan, 0.5]])
    named = np.array([[0, 1], [0, 2]])
    found = quantities(main, submodels, named)
    assert found.keys() == QUANTITIES.keys()
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["first_submodel"].tolist() == [10, 0]
    assert found["second_submodel"].tolist() == [-10, 0]
    assert found["other_submodels"].tolist() == [-10, -10]
    assert both_asked(submodels, np.array([[0, 2], [0, 2]])).tolist() == [False, True]


def test_other_submodels_are_those_of_no_named_class() -> None:
    found = quantities(MAIN[:1], SUBMODELS[:1], np.array([[0, 2]]))
    assert found["other_submodels"] == pytest.approx([np.log(0.8 / 0.2)])
    assert found["main_gap"] == pytest.approx([np.log(2)])


def changed(bundle: Path, folder: Path, **fields: Any) -> Path:
    """Return a copy of a bundle with other rules."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["rules"] |= fields
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of twelve pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        draw(CLASSES[number % 3], number + 40).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def judging(routing_bundle: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that finds answers of all three kinds among the photos, and accepts some of the others."""
    engine = Engine.load(routing_bundle)
    viewed = [engine.see(path) for path in sorted(photos.iterdir())]
    output = engine.run(viewed)  # type: ignore[arg-type]
    names = {"second_submodel": 1.0}
    scores = Both(weights=names, threshold=0, false_mark_rate=0).margin(
        output.main, output.submodels, np.argsort(-output.probabilities, axis=1)[:, :2]
    )
    manifest = read_manifest(routing_bundle)[0]
    distance = output.doubt * manifest.rules.unsure.distance_above
    unsure = json.loads((routing_bundle / "bundle.json").read_text())["rules"]["unsure"]
    unsure |= {"distance_above": float(np.sort(distance)[-3]) + 1e-6, "submodels_below": 0.0}
    both = {"weights": names, "threshold": float(np.sort(scores)[-6]), "false_mark_rate": 0.02}
    accept = ACCEPT | {"threshold": float(np.median(output.probabilities.max(axis=1)))}
    folder = tmp_path_factory.mktemp("judging") / "judging"
    return changed(routing_bundle, folder, unsure=unsure, both=both, accept=accept)


def columns(predictions: list[Prediction]) -> list[tuple[bool, bool, bool | None]]:
    return [(one.unsure, one.both, one.accepted) for one in predictions]


def test_python_rows_api_page_and_report_agree(run: Run, judging: Path, photos: Path, tmp_path: Path) -> None:
    paths = sorted(photos.iterdir())
    said = canonistia.load(judging).classify(paths)
    kinds = columns(said)
    assert {one[:2] for one in kinds} == {(True, False), (False, True), (False, False)}
    assert {True, False} == {one[2] for one in kinds}
    assert not any(unsure and (both or accepted) for unsure, both, accepted in kinds)

    words = ("classify", photos, "--model", judging)
    assert run(*words, "--out", tmp_path / "o.csv", "--report", tmp_path / "report.html").exit_code == 0
    with (tmp_path / "o.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [tuple(row[name] == "true" for name in ("unsure", "both", "accepted")) for row in rows] == kinds
    run(*words, "--out", tmp_path / "o.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [tuple(line[name] for name in ("unsure", "both", "accepted")) for line in lines] == kinds
    assert [{name: line[name] for name in asdict(one)} for line, one in zip(lines, said, strict=True)] == [
        asdict(one) for one in said
    ]

    client = application(judging).test_client()
    files = [(path.read_bytes(), path.name) for path in paths]
    results = client.post("/api/v1/classify", data=upload(*files)).json["results"]  # type: ignore[index]
    assert [(one["unsure"], one["both"], one["accepted"]) for one in results] == kinds
    page = client.post("/", data=upload(*files, field="pictures")).text
    unsure, both = (sum(bool(one[place]) for one in kinds) for place in (0, 1))
    assert f'<p id="summary">12 pictures · {both} show both · {unsure} unsure</p>' in page
    cards = page.partition("<template")[0].split("<article")[1:]
    assert [
        ("Not sure. Perhaps" in card, "Shows both:" in card, 'data-accepted="true"' in card) for card in cards
    ] == kinds
    assert [card.count("<meter") for card in cards] == [0 if both else 2 for _, both, _ in kinds]

    report = (tmp_path / "report.html").read_text()
    accepted = sum(bool(one[2]) for one in kinds)
    assert f"<tr><th>accepted<td>{accepted} ({accepted / 12:.1%})" in report
    assert f"<tr><th>look yourself<td>{12 - accepted} " in report
    shown = report.partition("Look yourself: the most doubtful")[2]
    assert shown.count("Shows both: ") == sum(both and not yes for _, both, yes in kinds)
    assert not any(path.name in shown for path, one in zip(paths, kinds, strict=True) if one[2])


def test_classify_says_how_many_it_accepts_after_the_first_answers_and_at_the_end(
    run: Run, judging: Path, routing_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade.cli, "FIRST_ANSWERS", 5)
    accepted = [one.accepted for one in canonistia.load(judging).classify(sorted(photos.iterdir()))]
    said = run("classify", photos, "--model", judging).stderr.splitlines()
    assert said == [
        f"of the first 5 answers {sum(map(bool, accepted[:5]))} are accepted",
        f"{accepted.count(True)} of 12 answers are accepted; look at the other {accepted.count(False)} yourself",
    ]
    assert run("classify", photos, "--model", judging, "--main-only").stderr == ""
    assert run("classify", photos, "--model", routing_bundle).stderr == ""


def test_the_table_names_the_marks(run: Run, judging: Path, photos: Path) -> None:
    shown = run("classify", photos, "--model", judging).stdout
    marks = re.findall(r"submodels(?: \((.*)\))?$", shown, re.MULTILINE)
    expected = [
        ", ".join(name for name in ("unsure", "both", "accepted") if getattr(one, name))
        for one in canonistia.load(judging).classify(sorted(photos.iterdir()))
    ]
    assert marks == expected


def test_the_main_model_alone_marks_nothing_both_and_accepts_nothing(judging: Path, photos: Path) -> None:
    said = load_engine(judging, main_only=True).classify(sorted(photos.iterdir()))
    assert {(one.both, one.accepted) for one in said} == {(False, None)}


def test_a_bundle_without_the_rules_has_no_such_marks(routing_bundle: Path, photos: Path, tmp_path: Path) -> None:
    manifest = json.loads((routing_bundle / "bundle.json").read_text())
    older = shutil.copytree(routing_bundle, tmp_path / "older")
    for name in ("both", "accept"):
        manifest["rules"].pop(name, None)
    (older / "bundle.json").write_text(json.dumps(manifest))
    said = Engine.load(older).classify(sorted(photos.iterdir()))
    assert {(one.both, one.accepted) for one in said} == {(False, None)}
    client = application(older).test_client()
    page = client.post("/", data=upload((encoded(draw("sky", 1)), "a.png"), field="pictures")).text
    assert "data-accepted" not in page


def seeing_two(bundle: Path, folder: Path, above: float, **fields: Any) -> Path:
    """Return a copy of a bundle whose main model is sure of everything, and routes by evidence of another class."""
    return changed(bundle, folder, routing={"rule": "another_class", "threshold": 0.0, "above": above}, **fields)


def test_a_picture_is_routed_by_its_maps_though_the_main_model_is_sure(
    routing_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    paths = sorted(photos.iterdir())
    engine = Engine.load(routing_bundle)
    viewed = [engine.see(path) for path in paths]
    (maps,) = engine.main_outputs(viewed, "activation_maps")  # type: ignore[arg-type]
    evidence = another_class(maps)
    above = float(np.sort(evidence)[-4:-2].mean())
    both = {"weights": {"another_class": 1.0}, "threshold": float(evidence.min()), "false_mark_rate": 0.02}
    sure = Engine.load(seeing_two(routing_bundle, tmp_path / "sure", above, both=both))
    sure.self_test()
    output = sure.run(viewed)  # type: ignore[arg-type]
    assert np.array_equal(output.routed, evidence > above)
    assert output.both_margin[output.routed] == pytest.approx(evidence[output.routed] - evidence.min(), abs=1e-4)
    client = application(tmp_path / "sure").test_client()
    chosen = paths[int(evidence.argmax())]
    page = client.post("/", data=upload((chosen.read_bytes(), "a.png"), field="pictures")).text
    assert re.search(r"was sure \(\d+%\), but saw another class in a part of the picture, so a specialist", page)


def test_a_bundle_that_routes_by_maps_and_has_none_is_refused(
    routing_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(seeing_two(routing_bundle, tmp_path / "blind", 1.0))
    monkeypatch.setattr(Engine, "has_activation_maps", False)
    with pytest.raises(BundleError, match="has no activation maps: its backbone"):
        engine.self_test()


def test_a_rule_of_unknown_quantities_is_refused(routing_bundle: Path, tmp_path: Path) -> None:
    rule = {"weights": {"colour": 1.0}, "threshold": 0.0, "false_mark_rate": 0.02}
    folder = changed(routing_bundle, tmp_path / "other", both=rule)
    with pytest.raises(BundleError, match="the rule for both weighs colour, expected first_submodel"):
        read_manifest(folder)
