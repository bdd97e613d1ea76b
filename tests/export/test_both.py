"""Fitting the mark both."""

from dataclasses import replace

import numpy as np
import pytest

from cascade.rules.cascade import CascadeOutput, known_answers, run_cascade
from cascade.rules.probabilities import top_two
from export.fitting.both import threshold_at
from export.fitting.selection import FittedCascade, Terms, fit_cascade
from export.fitting.stage_logits import ComposedLogits, StageLogits
from trainers.data.composed import WAYS, draw_pairs, parents_of

TERMS = Terms(5, second_stage_cost=2.0, budget=2.2, false_alarm_rate=0.02, seed=0)


def shown(truth: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of both stages for pictures that show these classes (N, 5), each to a degree."""
    main = 3.0 * truth + rng.normal(0, 1, truth.shape)
    return main, 5.0 * (truth - 0.4) + rng.normal(0, 1, truth.shape)


def pictures(count: int, seed: int = 0) -> StageLogits:
    """Return logits about pictures of one class, and about as many that are composed of two of them."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 5, count)
    main, submodels = shown(np.eye(5)[targets], rng)
    parents = parents_of(draw_pairs(targets, count, tuple(WAYS), seed))
    both_main, both_submodels = shown(0.8 * np.eye(5)[targets[parents]].sum(axis=1), rng)
    composed = StageLogits(both_main, np.ones(count), both_submodels, targets[parents[:, 0]])
    return StageLogits(main, np.ones(count), submodels, targets, composed=ComposedLogits(composed, parents))


def answered(fitted: FittedCascade, logits: StageLogits) -> CascadeOutput:
    stages = logits.calibrated(fitted.calibrators)
    return run_cascade(fitted.rules, stages.main, stages.distance, known_answers(stages.submodels))


@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_pictures_of_two_classes_are_marked_and_no_more_of_one_class_than_the_rate(rate: float) -> None:
    fitted = fit_cascade(pictures(1200), replace(TERMS, both_rate=rate))
    assert fitted.rules.both is not None
    assert fitted.rules.both.false_mark_rate == rate
    assert fitted.rules.both.weights["second_submodel"] > 0
    unseen = pictures(3000, seed=1)
    assert answered(fitted, unseen).both.mean() <= 1.5 * rate
    assert unseen.composed is not None
    output = answered(fitted, unseen.composed.logits)
    classes = np.sort(unseen.targets[unseen.composed.parents], axis=1)
    right = (np.sort(top_two(output.probabilities), axis=1) == classes).all(axis=1)
    assert output.both.mean() > 10 * rate
    assert right[output.both].mean() > 0.9


def test_without_composed_pictures_or_routed_ones_there_is_no_rule() -> None:
    assert fit_cascade(replace(pictures(600), composed=None), TERMS).rules.both is None
    assert fit_cascade(pictures(30), TERMS).rules.both is None


def test_a_part_of_the_pictures_has_the_pairs_that_are_composed_of_it_alone() -> None:
    whole = pictures(100)
    chosen = np.arange(0, 100, 2)
    part = whole.take(chosen).composed
    assert whole.composed is not None
    assert part is not None
    kept = (whole.composed.parents % 2 == 0).all(axis=1)
    assert np.array_equal(chosen[part.parents], whole.composed.parents[kept])
    assert np.array_equal(part.logits.main, whole.composed.logits.main[kept])


def test_the_threshold_lies_between_the_last_that_may_be_marked_and_the_next() -> None:
    scores = np.array([-np.inf] * 95 + [1.0, 2.0, 3.0, 4.0, 5.0])
    assert threshold_at(scores, 0.02) == 3.5
    assert threshold_at(scores, 0.0) > 5
    assert threshold_at(scores, 0.05) == -np.inf
    assert (np.array([1.0, 1.0, 1.0, 1.0]) >= threshold_at(np.array([1.0, 1.0, 1.0, 1.0]), 0.5)).sum() == 0
