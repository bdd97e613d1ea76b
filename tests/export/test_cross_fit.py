"""Cross-fitting: few pictures serve for training and for judging, and none is answered by heads that know it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cascade.bundle.reading import read_bundle
from cascade.errors import CanonistiaError
from cascade.images.folders import pictures_below
from cascade.images.preprocess import PreprocessSpec
from export.bundles.cross_fit import CrossFitted, HeadRecipes, Pictures, StageFeatures, cross_fit
from export.fitting.both import pairs_within
from export.graphs.another_class import EvidenceByHeads, evidence_of_another_class
from tests.conftest import Run
from trainers.networks.classifier import build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import MAIN_DEFAULTS, SUB_DEFAULTS

# So few pictures make one step per epoch: with larger steps the heads learn them by heart.
RECIPES = HeadRecipes(replace(MAIN_DEFAULTS, lr=0.02), replace(SUB_DEFAULTS, lr=0.02), "weighted")
CLASSES, EACH = 3, 10


def pictures(groups: np.ndarray | None = None) -> Pictures:
    count = CLASSES * EACH
    targets = np.arange(count) % CLASSES
    return Pictures(targets, np.ones(count), np.arange(count) if groups is None else groups)


def noise() -> StageFeatures:
    """Return features that say nothing about the classes, and so many that heads learn pictures by heart."""
    torch.manual_seed(0)
    return StageFeatures(torch.randn(CLASSES * EACH, 400), torch.randn(CLASSES * EACH, 300))


@pytest.fixture(scope="module")
def crossed() -> CrossFitted:
    return cross_fit(noise(), pictures(), RECIPES, seed=0)


def test_pictures_are_answered_by_heads_that_do_not_know_them(crossed: CrossFitted) -> None:
    known = pictures()
    answered = crossed.logits(noise(), known.targets, crossed.fold)
    others = crossed.logits(noise(), known.targets, (crossed.fold + 1) % len(crossed.heads))
    for stage in ("main", "submodels"):
        assert (getattr(answered, stage).argmax(axis=1) == known.targets).mean() < 0.6
        assert (getattr(others, stage).argmax(axis=1) == known.targets).mean() > 0.9
    assert np.array_equal(answered.targets, known.targets)
    assert answered.distance.mean() > others.distance.mean()


def test_every_fold_holds_out_every_class_and_every_picture_once(crossed: CrossFitted) -> None:
    counts = np.zeros((5, CLASSES), dtype=int)
    np.add.at(counts, (crossed.fold, pictures().targets), 1)
    assert (counts == 2).all()


def test_copies_of_a_picture_share_a_fold() -> None:
    groups = np.arange(CLASSES * EACH)
    groups[3:6] = groups[0:3]  # the second picture of each class is a copy of the first
    fold = cross_fit(noise(), pictures(groups), RECIPES, seed=0).fold
    assert np.array_equal(fold[3:6], fold[0:3])


def test_what_is_served_answers_with_the_mean_of_the_folds_logits(crossed: CrossFitted) -> None:
    main, submodels = crossed.mean()
    features = noise()
    with torch.inference_mode():
        for mean, name in ((main, "main"), (submodels, "submodels")):
            given = getattr(features, name)
            each = torch.stack([getattr(heads, name)(given) for heads in crossed.heads])
            assert torch.allclose(mean(given), each.mean(dim=0), atol=1e-5)


def test_the_same_seed_gives_the_same_heads_and_the_state_of_chance_is_left_alone(crossed: CrossFitted) -> None:
    features = noise()
    before = torch.get_rng_state()
    again = cross_fit(features, pictures(), RECIPES, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.heads[0].main.weight, crossed.heads[0].main.weight)


def test_a_class_with_two_pictures_cannot_be_cross_fitted() -> None:
    few = Pictures(np.array([0, 0, 0, 0, 1, 1]), np.ones(6), np.arange(6))
    with pytest.raises(CanonistiaError, match=r"a class has 2 pictures, .* expected at least 3"):
        cross_fit(StageFeatures(torch.randn(6, 8), torch.randn(6, 8)), few, RECIPES, seed=0)


def test_pairs_are_of_one_fold(crossed: CrossFitted) -> None:
    targets = pictures().targets
    pairs = pairs_within(crossed.fold, targets, seed=0)
    assert len(pairs) == len(targets)
    for pair in pairs:
        assert crossed.fold[pair.first] == crossed.fold[pair.second]
        assert targets[pair.first] != targets[pair.second]


def test_the_evidence_of_another_class_is_that_of_the_head_that_does_not_know_the_picture(few_data: Path) -> None:
    torch.manual_seed(0)
    config, spec = NetworkConfig("timm/test_efficientnet", size=96, pretrained=False), PreprocessSpec(96, "squash")
    network = build_classifier(config, CLASSES)
    heads = [nn.Linear(network.head.in_features, CLASSES) for _ in range(2)]
    paths = pictures_below(few_data)[:4]
    found = EvidenceByHeads(network, heads, spec)(paths, np.array([0, 1, 1, 0]))
    each: list[np.ndarray] = []
    for head in heads:
        network.head = head
        evidence = evidence_of_another_class(network, paths, spec, None)
        assert evidence is not None
        each.append(evidence)
    assert found is not None
    assert np.allclose(found, [each[0][0], each[1][1], each[1][2], each[0][3]], atol=1e-4)
    assert np.abs(each[0] - each[1]).min() > 1e-3  # so that the tolerance tells the heads apart


def exported(run: Run, data: Path, main: Path, subs: Path, out: Path, *more: object) -> str:
    result = run("export", "--main", main, "--subs", subs, "--data", data, "--out", out, "--cross-fit", *more)
    assert result.exit_code == (0 if out.exists() else 1 if "--int8" not in more else 2), result.output
    return result.output


def test_a_cross_fitted_bundle_is_measured_on_all_pictures_and_says_so(
    run: Run, few_data: Path, light_main: Path, light_subs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "few"
    exported(run, few_data, light_main, light_subs, out)
    manifest = read_bundle(out).manifest
    assert manifest.measured.pictures == 21  # 2 for training and 5 for validation of each of three classes
    assert "by heads that were trained without it" in manifest.measured.method
    assert manifest.provenance.commands[-1].endswith("--data data --cross-fit --out few")
    card = (out / "MODEL_CARD.md").read_text()
    assert "They are wide: 21 pictures tell no more" in card


def test_a_network_that_was_fine_tuned_is_not_cross_fitted(
    run: Run, few_data: Path, light_main: Path, light_subs: Path, tmp_path: Path
) -> None:
    main = Path(shutil.copytree(light_main, tmp_path / "main"))
    config = json.loads((main / "config.json").read_text())
    (main / "config.json").write_text(json.dumps({**config, "unfreeze": "last-1"}))
    said = exported(run, few_data, main, light_subs, tmp_path / "few")
    assert "was fine-tuned, and --cross-fit trains heads on frozen networks alone" in said
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [(("--checkpoint", "best"), "leave one of them out"), (("--int8",), "holds none out; leave one out")],
)
def test_what_contradicts_cross_fitting_is_refused(
    more: tuple[str, ...],
    expected: str,
    run: Run,
    few_data: Path,
    light_main: Path,
    light_subs: Path,
    tmp_path: Path,
) -> None:
    assert expected in exported(run, few_data, light_main, light_subs, tmp_path / "few", *more)
