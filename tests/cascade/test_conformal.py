"""Prediction sets contain the true class as often as they promise."""

import numpy as np
import pytest

from cascade.evaluation.conformal import COVERAGES, conformal_limit, coverage_and_size, prediction_sets


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(6, 0.3), count)
    # The classifier is off: what it calls likely is less so.
    truth = 0.7 * probabilities + 0.3 / 6
    return probabilities, np.array([rng.choice(6, p=row) for row in truth])


@pytest.mark.parametrize("coverage", COVERAGES)
def test_the_promise_holds_on_new_pictures_even_of_a_classifier_that_is_off(coverage: float) -> None:
    limit = conformal_limit(*pictures(2000, 0), coverage)
    held, size = coverage_and_size(*pictures(4000, 1), limit)
    assert held >= coverage - 0.015
    assert 1 <= size < 6


def test_the_limit_is_the_score_of_the_rank_that_the_definition_names() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    targets = np.array([0, 0, 0, 1])  # scores 0.1, 0.4, 0.8, 0.7
    assert conformal_limit(probabilities, targets, 0.6) == pytest.approx(0.7)  # ceil(5 * 0.6) = 3rd smallest


def test_too_few_pictures_for_the_coverage_give_every_class() -> None:
    probabilities, targets = pictures(20, 0)
    limit = conformal_limit(probabilities, targets, 0.99)
    assert prediction_sets(probabilities, limit).all()


def test_no_set_is_empty() -> None:
    sets = prediction_sets(np.array([[0.4, 0.35, 0.25], [0.9, 0.05, 0.05]]), 0.3)
    assert sets.tolist() == [[True, False, False], [True, False, False]]
