"""Tuning a bundle."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from scipy.special import softmax

from cascade.bundle.reading import read_bundle
from cascade.images.decoding import decode
from cascade.images.folders import pictures_below
from cascade.inference.engine import Engine
from export.fitting.decisions import DECISIONS
from export.fitting.routing import ROUTINGS
from tests.conftest import CLASSES, Run, write_class_folders


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "models" / "tiny"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rules_and_calibration_are_fitted_on_the_pictures_given(run: Run, bundle: Path, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "seen", dict.fromkeys(CLASSES, 30), 900)
    manifest = tmp_path / "seen.csv"
    run("check-data", tmp_path / "seen", "--fix", manifest)
    before = read_bundle(bundle).manifest
    done = run("tune", bundle, manifest, "--budget", 3, "--plot", tmp_path / "curve.png")
    assert done.exit_code == 0, done.output
    rows = [line.split()[:2] for line in done.output.splitlines() if line.startswith(tuple(ROUTINGS))]
    assert {"another_class", "confidence"} <= {routing for routing, _ in rows} <= set(ROUTINGS)
    assert {decision for _, decision in rows} <= set(DECISIONS)
    after = read_bundle(bundle).manifest
    assert after.measured.pictures == len(manifest.read_text().splitlines()) - 1 > 80
    assert after.measured.split == "seen"
    assert after.calibration.temperature != before.calibration.temperature
    assert after.provenance.commands == [*before.provenance.commands, "canonistia tune tiny seen.csv --budget 3"]
    # The temperature in the manifest is the one that answers.
    engine = Engine.load(bundle)
    pictures = [decode(path) for path in pictures_below(tmp_path / "seen")[:8]]
    (logits,) = engine.main_outputs(pictures, "logits")
    expected = softmax(logits / after.calibration.temperature, axis=1)
    assert engine.run(pictures).main == pytest.approx(expected, abs=1e-6)
    with Image.open(tmp_path / "curve.png") as curve:
        assert curve.width > 800
    assert "canonistia tune tiny seen" in (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_a_data_set_is_tuned_on_by_its_validation_split(run: Run, bundle: Path, tiny_data: Path) -> None:
    # What a stranger left in the folder is neither followed nor waited for, and not written through.
    (bundle.parent / "secret").write_text("secret")
    (bundle / "MODEL_CARD.md").unlink()
    (bundle / "MODEL_CARD.md").symlink_to(bundle.parent / "secret")
    os.mkfifo(bundle / "pipe")
    promised = ("--both-rate", 0.1, "--accept", 0.5)
    done = run("tune", bundle, tiny_data, "--budget", 2, *promised, "--plot", bundle.parent / "curve.png")
    assert done.exit_code == 0, done.output
    manifest = read_bundle(bundle).manifest
    assert manifest.measured.pictures == 24
    assert manifest.provenance.commands[-1] == "canonistia tune tiny data --budget 2 --both-rate 0.1 --accept 0.5"
    accept = manifest.rules.accept
    assert accept is not None
    assert (accept.accuracy, accept.pictures) == (0.5, 24)
    assert f"accepted answers: {accept.accepted} of 24 " in done.output
    assert f"{accept.accepted} of 24 were accepted" in read_bundle(bundle).card()
    assert (bundle.parent / "secret").read_text() == "secret"
    assert read_bundle(bundle).card().startswith("#")
    assert not (bundle / "pipe").exists()


def test_heads_that_read_both_stages_are_tuned_as_they_are(
    run: Run, both_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(both_bundle, tmp_path / "models" / "both"))
    done = run("tune", bundle, tiny_data, "--budget", 3, "--plot", tmp_path / "curve.png")
    assert done.exit_code == 0, done.output
    after = read_bundle(bundle).manifest
    assert after.head_features == "both"
    assert after.provenance.commands[-1] == "canonistia tune both data --budget 3"


def test_too_few_doubtful_pictures_are_said_and_the_simplest_rules_kept(run: Run, bundle: Path, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "few", dict.fromkeys(CLASSES, 4), 900)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["rules"]["both"] = {"weights": {"main_gap": 1}, "threshold": 0, "false_mark_rate": 0.1}
    promised = {"threshold": 0.9, "accuracy": 0.9, "confidence": 0.95, "pictures": 30, "accepted": 29, "mistakes": 0}
    manifest["rules"]["accept"] = promised
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    done = run("tune", bundle, tmp_path / "few", "--plot", tmp_path / "curve.png")
    assert done.exit_code == 0, done.output
    assert "too few doubtful pictures to choose rules from: the simplest are kept" in done.output
    rules = read_bundle(bundle).manifest.rules
    assert (rules.routing.name, rules.decision.name) == ("confidence", "product")
    # What was fitted with other rules does not stay.
    assert (rules.both, rules.accept) == (None, None)
    assert "no answer is marked both: too few pictures are routed to fit the mark" in done.output


@pytest.mark.parametrize(
    ("counts", "options", "sentence"),
    [
        ({**dict.fromkeys(CLASSES, 4), "moon": 4}, (), "has classes that the model does not know: moon"),
        ({"dots": 9}, (), "has 0 pictures of rows; calibration and routing need at least 3 of every class"),
        ({}, (), "holds no pictures in class folders"),
        (dict.fromkeys(CLASSES, 4), ("--budget", 1), "leaves nothing for the second stage"),
        (dict.fromkeys(CLASSES, 4), ("--accept", 0.99), "and 299 with no more mistakes are needed; add at least 28"),
        (
            dict.fromkeys(CLASSES, 4),
            ("--plot", "curve.docx"),
            "ends in '.docx', expected '.png'; give a name",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    run: Run, bundle: Path, tmp_path: Path, counts: dict[str, int], options: tuple[object, ...], sentence: str
) -> None:
    (tmp_path / "data").mkdir()
    write_class_folders(tmp_path / "data", counts, 900)
    before = content(bundle)
    done = run("tune", bundle, tmp_path / "data", *options)
    assert done.exit_code == 1
    assert sentence in done.output
    assert content(bundle) == before
    assert not list(bundle.parent.glob(".*"))
