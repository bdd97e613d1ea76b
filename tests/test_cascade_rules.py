"""Routing and decision rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cascade.rules import (
    Confidence,
    HighestSubmodel,
    LogLinear,
    Margin,
    Product,
    candidate_classes,
    decide,
    is_unsure,
    route,
    top_two,
)

MAIN = np.array([[0.5, 0.3, 0.2], [0.9, 0.06, 0.04]])


def test_confidence_routes_below_its_threshold() -> None:
    assert route(Confidence(threshold=0.6), MAIN).tolist() == [True, False]


def test_margin_routes_when_the_first_two_are_near() -> None:
    assert route(Margin(threshold=0.3), MAIN).tolist() == [True, False]
    assert route(Margin(threshold=0.1), MAIN).tolist() == [False, False]


def test_candidates_are_the_most_likely_classes() -> None:
    assert candidate_classes(MAIN, 2).tolist() == [[True, True, False], [True, True, False]]


def test_the_highest_submodel_wins_whatever_the_main_model_said() -> None:
    final = decide(HighestSubmodel(), MAIN[:1], np.array([[0.1, 0.2, 0.9]]))
    assert top_two(final).tolist() == [[2, 1]]
    assert final[0] == pytest.approx(np.array([0.1, 0.2, 0.9]) / 1.2)


def test_the_product_weighs_both() -> None:
    final = decide(Product(), MAIN[:1], np.array([[0.5, 0.9, 0.1]]))
    assert final[0] == pytest.approx(np.array([0.25, 0.27, 0.02]) / 0.54)


def test_log_linear_without_submodel_weight_is_the_main_model() -> None:
    final = decide(LogLinear(main_weight=1, submodel_weight=0), MAIN[:1], np.array([[0.1, 0.2, 0.9]]))
    assert final[0] == pytest.approx(MAIN[0])


def test_a_class_not_asked_about_keeps_its_probability() -> None:
    final = decide(HighestSubmodel(), MAIN[:1], np.array([[0.2, 0.6, np.nan]]))
    assert final[0] == pytest.approx([0.2, 0.6, 0.2])


def test_unsure_means_that_every_submodel_asked_said_no() -> None:
    answers = np.array([[0.4, 0.1, np.nan], [0.4, 0.6, np.nan]])
    assert is_unsure(0.5, answers).tolist() == [True, False]


def test_ties_go_to_the_earlier_class() -> None:
    assert top_two(np.array([[0.25, 0.25, 0.25, 0.25]])).tolist() == [[0, 1]]


@given(
    arrays(np.float64, (4, 5), elements=st.floats(1e-6, 1)),
    arrays(np.float64, (4, 5), elements=st.floats(0, 1)),
    st.integers(2, 5),
    st.sampled_from([HighestSubmodel(), Product(), LogLinear(main_weight=0.7, submodel_weight=1.3)]),
)
def test_every_decision_gives_probabilities(
    main: np.ndarray, submodels: np.ndarray, count: int, decision: HighestSubmodel | Product | LogLinear
) -> None:
    main = main / main.sum(axis=1, keepdims=True)
    asked = np.where(candidate_classes(main, count), submodels, np.nan)
    final = decide(decision, main, asked)
    assert (final >= 0).all()
    assert final.sum(axis=1) == pytest.approx(np.ones(4))
