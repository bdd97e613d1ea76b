"""Negative policies."""

import numpy as np
import pytest

from cascade.errors import CanonistiaError
from trainers.features.negatives import HARD_WEIGHT, SIBLINGS, cross_fitted, example_weights

TARGETS = np.repeat(np.arange(8), [4, 6, 6, 6, 6, 6, 6, 6])
CONFUSION = np.full((8, 8), 0.01)
CONFUSION[0, 1:4] = (0.3, 0.2, 0.1)
CONFUSION[5, 0] = 0.25
OUT_OF_FOLD = CONFUSION[TARGETS]  # every picture of a class is taken for the others alike


def by_class(policy: str) -> np.ndarray:
    weights = example_weights(policy, TARGETS, 0, OUT_OF_FOLD)
    return np.array([weights[label == TARGETS].mean() for label in range(8)])


@pytest.mark.parametrize("policy", ["all", "siblings", "weighted", "hard"])
def test_positives_and_negatives_weigh_the_same(policy: str) -> None:
    weights = example_weights(policy, TARGETS, 0, OUT_OF_FOLD)
    assert weights[TARGETS == 0].sum() == pytest.approx(weights[TARGETS != 0].sum())
    assert weights.mean() == pytest.approx(1)


def test_all_counts_every_negative_alike() -> None:
    assert np.ptp(by_class("all")[1:]) == pytest.approx(0)


def test_siblings_keep_the_most_confused_classes_in_either_direction() -> None:
    kept = np.flatnonzero(by_class("siblings")[1:]) + 1
    assert len(kept) == SIBLINGS
    assert {1, 2, 3, 5} <= set(kept.tolist())


def test_weighted_counts_the_hardest_class_most() -> None:
    weights = by_class("weighted")
    assert weights[1] == weights[1:].max()
    assert weights[5] > weights[2] > weights[3] > weights[7]
    assert weights[1] / weights[7] <= 1 + HARD_WEIGHT


def test_hard_counts_the_mistaken_pictures_most() -> None:
    out_of_fold = np.full((len(TARGETS), 8), 0.02)
    out_of_fold[np.arange(len(TARGETS)), TARGETS] = 0.86
    out_of_fold[10, 0], out_of_fold[10, TARGETS[10]] = 0.8, 0.08  # another class taken for this one
    out_of_fold[2, 0], out_of_fold[2, 4] = 0.1, 0.78  # this class taken for another
    weights = example_weights("hard", TARGETS, 0, out_of_fold)
    assert weights[10] / weights[11] == pytest.approx((1 + HARD_WEIGHT * 0.8) / (1 + HARD_WEIGHT * 0.02))
    assert weights[2] / weights[1] == pytest.approx((1 + HARD_WEIGHT * 0.9) / (1 + HARD_WEIGHT * 0.14))


def test_confusion_comes_from_pictures_not_fitted_on() -> None:
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(3), 30)
    features = rng.normal(size=(90, 20))  # nothing to learn: a fitted head would be sure all the same
    out_of_fold = cross_fitted(features, targets)
    assert out_of_fold.sum(axis=1) == pytest.approx(np.ones(90))
    by_class = np.stack([out_of_fold[targets == label].mean(axis=0) for label in range(3)])
    assert np.abs(by_class - 1 / 3).max() < 0.2


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(CanonistiaError, match="unknown negative policy 'some'"):
        example_weights("some", TARGETS, 0, OUT_OF_FOLD)


def test_given_weights_multiply_those_of_a_policy_and_the_total_stays() -> None:
    given = np.where(np.arange(len(TARGETS)) % 2 == 0, 3.0, 1.0)
    before = example_weights("weighted", TARGETS, 0, OUT_OF_FOLD)
    after = example_weights("weighted", TARGETS, 0, OUT_OF_FOLD, given)
    for kind in (TARGETS == 0, TARGETS != 0):
        ratio = after[kind] / before[kind]
        assert ratio / ratio.min() == pytest.approx(given[kind] / given[kind].min())
        assert after[kind].sum() == pytest.approx(len(TARGETS) / 2)
