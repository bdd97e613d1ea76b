"""Routing and decision rules."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cascade.rules.another_class import another_class
from cascade.rules.cascade import candidate_classes
from cascade.rules.decision import HighestSubmodel, LogLinear, Product, decide
from cascade.rules.distance_calibration import DistanceCalibration, soften
from cascade.rules.probabilities import softmax, top_two
from cascade.rules.routing import AnotherClass, Confidence, Deferral, Entropy, Margin, PerClass, doubt_features
from cascade.rules.unsure import Unsure, doubtfulness

MAIN = np.array([[0.5, 0.3, 0.2], [0.9, 0.06, 0.04]])


def test_confidence_routes_below_its_threshold() -> None:
    assert Confidence(threshold=0.6).route(MAIN).tolist() == [True, False]


def test_margin_routes_when_the_first_two_are_near() -> None:
    assert Margin(threshold=0.3).route(MAIN).tolist() == [True, False]
    assert Margin(threshold=0.1).route(MAIN).tolist() == [False, False]


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


def test_entropy_routes_spread_out_answers() -> None:
    even = np.full((1, 4), 0.25)
    certain = np.eye(4)[:1]
    assert Entropy(threshold=0.3).score(np.concatenate([even, certain])) == pytest.approx([0, 1])
    assert Entropy(threshold=0.3).route(MAIN).tolist() == [True, False]


def test_each_class_has_its_own_threshold() -> None:
    three = np.array([[0.6, 0.4, 0.0], [0.4, 0.6, 0.0], [0.3, 0.1, 0.6]])
    assert PerClass(thresholds=[0.5, 0.7, 0.6]).route(three).tolist() == [False, True, False]


def test_the_learned_rule_routes_where_help_is_likelier_than_harm() -> None:
    nothing = [0.0] * 7
    helps = [-5.0, 0.0, 0.0, 0.0, 10.0, 0.0, 0.0]  # likely where class 0 is predicted
    rule = Deferral(helps=helps, hurts=nothing, threshold=0.5)
    answers = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    assert doubt_features(answers).shape == (2, 7)
    assert rule.route(answers).tolist() == [True, False]
    assert rule.score(answers)[0] == pytest.approx((1 + 0.5 - 1 / (1 + np.exp(-5))) / 2)


def test_unsure_means_far_from_every_class_or_refused_by_every_submodel_asked() -> None:
    rule = Unsure(distance_above=2.0, submodels_below=0.5, false_alarm_rate=0.02)
    answers = np.array([[0.4, 0.1, np.nan], [0.4, 0.6, np.nan], [np.nan] * 3, [np.nan] * 3])
    score = rule.score(np.array([1.0, 1.0, 1.0, 3.0]), answers)
    assert (score > 1).tolist() == [True, False, False, True]
    assert score.tolist() == pytest.approx([1.2, 0.8, 0.5, 1.5])


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


def maps_of(left: list[float], right: list[float]) -> np.ndarray:
    """Return maps (1, K, 4, 8) of a picture whose halves have these logits."""
    halves = [np.broadcast_to(np.array(half, dtype=np.float32)[:, None, None], (3, 4, 4)) for half in (left, right)]
    return np.concatenate(halves, axis=2)[None]


def test_another_class_counts_where_it_wins_though_the_first_class_is_far_ahead_in_the_mean() -> None:
    alike = maps_of([9, 1, 0], [9, 1, 0])
    two = maps_of([18, -2, 0], [0, 4, 0])
    assert two.mean(axis=(2, 3)).tolist() == [[9, 1, 0]] == alike.mean(axis=(2, 3)).tolist()  # the same logits
    assert another_class(alike) == pytest.approx([-8])
    assert another_class(two) == pytest.approx([4])
    corner = alike.copy()
    corner[0, 2, 0, 0] = 20  # one place of 32 counts for a quarter of the strongest eighth
    assert another_class(corner) == pytest.approx([(11 - 3 * 8) / 4])
    assert another_class(np.array([3.0, 1.0, 2.0]).reshape(1, 3, 1, 1)) == pytest.approx([-1])  # maps of one place


def test_another_class_routes_what_the_main_model_is_sure_of() -> None:
    rule = AnotherClass(threshold=0.3, above=2.0)
    sure = np.array([[0.5, 0.3, 0.2], [0.99, 0.006, 0.004], [0.99, 0.006, 0.004]])
    assert rule.route(sure, np.array([-5.0, 3.0, 2.0])).tolist() == [True, True, False]
    assert rule.needs_maps
    assert not rule.routes_nothing
    assert "evidence of another class above 2.000" in rule.description
    with pytest.raises(ValueError, match="gives no activation maps"):
        rule.route(sure)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 1.0])
def test_half_of_the_share_is_routed_by_the_evidence_of_another_class(share: float) -> None:
    rng = np.random.default_rng(0)
    main, another = softmax(rng.normal(0, 3, (400, 5)), 1.0), rng.normal(0, 2, 400)
    (rule,) = AnotherClass(threshold=0, above=0).at_shares(main, np.zeros(400), [share], another)
    assert rule.route(main, another).sum() == round(share * 400)
    assert (another > rule.above).sum() == round(share / 2 * 400)
    settled = rule.settled(main, another)
    assert rule.route(main, another).sum() - 8 <= settled.route(main, another).sum() <= rule.route(main, another).sum()
    assert np.abs(another - settled.above).min() > 1e-4


def test_a_rule_says_whether_it_routes_nothing_and_then_it_does_not() -> None:
    even = np.full((3, 7), 1 / 7, dtype=np.float32)
    nothing = [rule(threshold=0) for rule in (Confidence, Margin, Entropy)]
    for rule in (*nothing, PerClass(thresholds=[0] * 7), Deferral(helps=[0] * 11, hurts=[0] * 11, threshold=0)):
        assert rule.routes_nothing
        assert not rule.route(even).any()
    assert not PerClass(thresholds=[0, 0.2, 0]).routes_nothing


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (PerClass(thresholds=[0.5]), "1 routing thresholds, expected one for each of 3"),
        (Deferral(helps=[0] * 7, hurts=[0] * 6, threshold=0.5), "needs 7 weights for 3 classes"),
    ],
)
def test_a_rule_for_another_number_of_classes_is_refused(rule: PerClass | Deferral, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rule.check(3)


def test_a_learned_rule_is_stored_as_before() -> None:
    rule = Deferral(helps=[1.0], hurts=[2.0], threshold=0.5)
    assert msgspec.json.encode(rule) == b'{"rule":"deferral","helps":[1.0],"hurts":[2.0],"threshold":0.5}'


def test_the_unsure_are_the_most_doubtful_and_then_those_between_two_classes() -> None:
    answers = [(False, 0.9, 0.1), (False, 0.4, 0.2), (True, 0.9, 0.05), (False, 0.5, 0.45), (True, 0.6, 0.3)]
    ordered = sorted(answers, key=lambda answer: doubtfulness(*answer), reverse=True)
    assert [answers.index(answer) for answer in ordered] == [4, 2, 3, 1, 0]


@given(
    arrays(float, (4, 3), elements=st.floats(0.01, 1)), st.floats(0, 10), arrays(float, 4, elements=st.floats(0, 50))
)
def test_far_pictures_get_softer_probabilities_in_the_same_order(
    scores: np.ndarray, slope: float, distance: np.ndarray
) -> None:
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    temperature = DistanceCalibration(start=2.0, slope=slope).temperature(distance)
    assert (temperature[distance <= 2] == 1).all()
    assert temperature == pytest.approx(1 + slope * np.maximum(distance / 2 - 1, 0))
    softened = soften(probabilities, temperature)
    assert softened.sum(axis=1) == pytest.approx(1)
    assert (softened[temperature == 1] == probabilities[temperature == 1]).all()
    assert (softened.max(axis=1) <= probabilities.max(axis=1) + 1e-9).all()
    chosen = probabilities.argmax(axis=1)
    assert np.take_along_axis(softened, chosen[:, None], axis=1)[:, 0] == pytest.approx(softened.max(axis=1))


@given(arrays(float, (5, 4), elements=st.floats(0.001, 1)), arrays(bool, 5), st.floats(0.05, 0.9))
def test_a_marked_answer_is_no_surer_than_such_answers_deserve(
    scores: np.ndarray, marked: np.ndarray, most: float
) -> None:
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    rule = Unsure(distance_above=1.0, submodels_below=0.0, false_alarm_rate=0.02, highest_probability=most)
    limited = rule.limited(probabilities, marked)
    assert (limited[~marked] == probabilities[~marked]).all()
    assert (limited[marked].max(axis=1) <= max(most, 0.25) + 1e-9).all()
    assert limited.sum(axis=1) == pytest.approx(1)
    assert (np.diff(np.take_along_axis(limited, np.argsort(probabilities, axis=1), axis=1), axis=1) >= -1e-12).all()


def test_softmax_of_extreme_logits_is_finite() -> None:
    assert softmax(np.array([[5000.0, 0, -5000]], dtype=np.float32), 0.05).tolist() == [[1.0, 0.0, 0.0]]
    assert softmax(np.array([[1.0, 0]]), 0.5) == pytest.approx(
        np.array([[1, 0]]) + np.array([[-1, 1]]) / (1 + np.exp(2))
    )
