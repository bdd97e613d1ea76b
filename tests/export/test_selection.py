"""Choosing the cascade's rules."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from scipy.special import softmax

from cascade.errors import CanonistiaError
from cascade.evaluation.metrics import expected_calibration_error, top_k_hits
from cascade.rules.cascade import CascadeOutput, known_answers, run_cascade
from cascade.rules.decision import LogLinear, Product
from cascade.rules.distance_calibration import EVERYWHERE_ALIKE, soften
from cascade.rules.routing import AnotherClass, Confidence, PerClass
from cascade.rules.thresholds import in_a_gap
from export.fitting.calibration import Calibrators
from export.fitting.decisions import DECISIONS
from export.fitting.distance_calibration import fit_distance_calibration
from export.fitting.routing import ROUTINGS
from export.fitting.selection import FittedCascade, Terms, choose, compare, fit_cascade, fit_rules, out_of_fold
from export.fitting.stage_logits import StageLogits, check_class_counts
from export.fitting.unsure import MOST_UNSURE, fit_unsure, with_deserved


def two_stages(count: int, submodel_skill: float, seed: int = 0) -> StageLogits:
    """Return logits of a fair main model, and of submodels that know the truth with the given strength."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 5, count)
    truth = np.eye(5)[targets]
    main = 2.5 * truth + rng.normal(0, 1, (count, 5))
    submodels = submodel_skill * (truth - 0.3) + rng.normal(0, 1, (count, 5))
    return StageLogits(main, np.ones(count), submodels, targets)


def terms(most_routed: float, candidates: int = 5) -> Terms:
    """Return terms whose budget lets this share through to a second stage that costs two main passes."""
    return Terms(candidates, second_stage_cost=2.0, budget=1 + 2 * most_routed, false_alarm_rate=0.02, seed=0)


def answer(fitted: FittedCascade, answers: StageLogits) -> CascadeOutput:
    stages = answers.calibrated(fitted.calibrators)
    return run_cascade(fitted.rules, stages.main, stages.distance, known_answers(stages.submodels))


def accuracy(answers: StageLogits, probabilities: np.ndarray) -> float:
    return float(top_k_hits(probabilities, answers.targets)[0].mean())


def test_good_submodels_raise_the_accuracy_on_unseen_pictures() -> None:
    fitted = fit_cascade(two_stages(1500, 4.0), terms(0.5))
    unseen = two_stages(3000, 4.0, seed=1)
    output = answer(fitted, unseen)
    assert accuracy(unseen, output.probabilities) > accuracy(unseen, output.main) + 0.05
    assert output.routed.mean() <= 0.55


def test_useless_submodels_do_no_harm() -> None:
    answers = two_stages(1500, 0.0)
    unseen = out_of_fold(answers, terms(0.3))
    assert accuracy(answers, unseen.cascade.probabilities) >= accuracy(answers, unseen.cascade.main) - 0.01


def test_no_more_is_routed_than_allowed() -> None:
    answers = two_stages(1500, 4.0)
    for limit in (0.05, 0.2):
        unseen = out_of_fold(answers, terms(limit))
        assert unseen.cascade.routed.mean() <= limit + 0.03


def test_the_threshold_lies_between_two_pictures() -> None:
    answers = two_stages(600, 3.0)
    fitted = fit_cascade(answers, terms(0.5))
    scores = fitted.rules.routing.score(fitted.calibrators.main(answers.main))
    assert np.abs(scores - fitted.rules.routing.threshold).min() >= 1e-4


def test_with_too_few_doubtful_pictures_the_simplest_rule_is_kept() -> None:
    fitted = fit_cascade(two_stages(30, 4.0), terms(0.3))
    assert fitted.compared == 0
    assert isinstance(fitted.rules.routing, Confidence)
    assert isinstance(fitted.rules.decision, Product)
    assert fitted.rules.routing.threshold > 0


def test_a_class_with_too_few_pictures_is_named() -> None:
    with pytest.raises(CanonistiaError, match=r"^photos has 2 pictures of sky; .* at least 3 of every class"):
        check_class_counts(np.array([0, 0, 0, 1, 1]), ["dots", "sky"], "photos")


def test_three_pictures_a_class_are_enough() -> None:
    answers = two_stages(200, 4.0)
    few = np.concatenate([np.flatnonzero(answers.targets == label)[:3] for label in range(5)])
    unseen = out_of_fold(answers.take(few), terms(0.3))
    assert np.isfinite(unseen.cascade.probabilities).all()


def test_a_weak_main_model_does_not_break_the_limit() -> None:
    answers = two_stages(600, 4.0)
    weak = replace(answers, main=np.random.default_rng(3).normal(0, 1, (600, 5)))
    fitted = fit_cascade(weak, terms(0.1))
    routed = fitted.rules.routing.route(fitted.calibrators.main(weak.main))
    assert routed.mean() <= 0.13


def test_submodels_that_mislead_are_not_asked() -> None:
    answers = two_stages(1500, -3.0)
    shuffled = np.random.default_rng(4).permutation(answers.submodels)
    misled = replace(answers, submodels=shuffled)
    fitted = fit_cascade(misled, terms(0.9))
    output = answer(fitted, misled)
    assert accuracy(answers, output.probabilities) >= accuracy(answers, output.main) - 0.005


def test_the_weights_do_not_depend_on_pictures_whose_class_was_not_asked() -> None:
    answers = two_stages(2000, 4.0)
    fitted = fit_cascade(answers, terms(0.6, 3))
    assert isinstance(fitted.rules.decision, LogLinear | Product)
    if isinstance(fitted.rules.decision, LogLinear):
        assert fitted.rules.decision.submodel_weight > 0.5
    unseen = two_stages(3000, 4.0, seed=1)
    output = answer(fitted, unseen)
    assert accuracy(unseen, output.probabilities) > accuracy(unseen, output.main) + 0.04


def test_two_classes_are_enough() -> None:
    answers = two_stages(900, 4.0)
    kept = np.flatnonzero(answers.targets < 2)
    two = answers.take(kept)
    two = replace(two, main=two.main[:, :2], submodels=two.submodels[:, :2])
    unseen = out_of_fold(two, terms(0.5, 2))
    assert accuracy(two, unseen.cascade.probabilities) >= accuracy(two, unseen.cascade.main)


def test_main_probabilities_out_of_fold_are_close_to_the_fitted_ones() -> None:
    answers = two_stages(1500, 3.0)
    unseen = out_of_fold(answers, terms(0.3))
    assert np.abs(unseen.cascade.main - softmax(answers.main, axis=1)).mean() < 0.1
    assert unseen.submodels.shape == (1500, 5)


def test_a_budget_that_does_not_pay_for_the_main_model_is_refused() -> None:
    for budget in (0.5, 1.0, float("nan")):
        with pytest.raises(CanonistiaError, match=r"every picture passes the main model, which costs 1; .* 3\.00"):
            Terms(5, second_stage_cost=2.0, budget=budget, false_alarm_rate=0.02, seed=0)


def test_every_pair_of_rules_is_compared_at_every_share() -> None:
    evidence = np.random.default_rng(6).normal(0, 1, 900)
    compared = compare(replace(two_stages(900, 3.0), another=evidence), terms(1.0), shares=(0.1, 0.5, 1.0))
    pairs = {(entry.routing, entry.decision) for entry in compared if entry.share}
    assert pairs == {(routing, decision) for routing in ROUTINGS for decision in DECISIONS}
    for entry in compared:
        assert entry.routed.mean() == pytest.approx(entry.share, abs=0.06)
        if entry.share == 1 and entry.decision == "highest_submodel":
            assert entry.routed.all()


def test_without_activation_maps_the_rule_that_needs_them_is_not_offered() -> None:
    compared = compare(two_stages(900, 3.0), terms(1.0), shares=(0.5,))
    assert {entry.routing for entry in compared if entry.share} == set(ROUTINGS) - {"another_class"}


def test_a_simpler_rule_is_taken_where_it_is_as_good() -> None:
    answers = two_stages(900, 3.0)
    chosen = choose(compare(answers, terms(0.5), shares=(0.3,)), answers.targets, 0.5)
    assert chosen.routing == "confidence"


def test_where_submodels_help_one_class_alone_the_rules_that_see_the_class_win() -> None:
    answers = two_stages(4000, 4.0)
    predicted = answers.main.argmax(axis=1)
    blind = np.random.default_rng(5).normal(0, 1, answers.submodels.shape)
    some = replace(answers, submodels=np.where((predicted == 2)[:, None], answers.submodels, blind))
    by_rule = {
        entry.routing: float(entry.log_loss(some.targets).mean())
        for entry in compare(some, terms(0.2), shares=(0.15,))
        if entry.decision == "product" and entry.share
    }
    assert by_rule["per_class"] < by_rule["confidence"] - 0.01
    assert by_rule["deferral"] < by_rule["confidence"] - 0.01


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_mark_keeps_to_its_rate_on_unseen_pictures(rate: float) -> None:
    def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        submodels = np.where(rng.random((4000, 1)) < 0.3, rng.beta(2, 1, (4000, 3)), np.nan)
        return rng.chisquare(20, 4000) / 20, submodels

    rule = fit_unsure(*pictures(0), rate)
    assert (rule.score(*pictures(0)) > 1).mean() <= rate
    assert (rule.score(*pictures(1)) > 1).mean() == pytest.approx(rate, abs=0.012)


def test_few_pictures_are_marked_only_beyond_the_farthest() -> None:
    distance = np.array([0.8, 1.0, 1.2])
    rule = fit_unsure(distance, np.full((3, 2), np.nan), 0.02)
    assert not (rule.score(distance, np.full((3, 2), np.nan)) > 1).any()
    assert rule.score(np.array([2.0]), np.full((1, 2), np.nan))[0] > 1


def test_a_threshold_is_settled_downwards_into_a_gap() -> None:
    scores = np.concatenate([np.linspace(0.1, 0.9, 50), np.full(50, 0.99999) + np.linspace(0, 1e-6, 50)])
    assert in_a_gap(scores, 0.5) == pytest.approx(0.5, abs=0.02)
    assert (scores < in_a_gap(scores, 0.5)).sum() <= (scores < 0.5).sum()
    crowded = in_a_gap(scores, float(np.sort(scores)[70]))
    assert (scores < crowded).sum() <= 70  # where no gap is wide, none is made up beyond the last picture
    assert in_a_gap(scores, 1.01) == 1.01
    assert in_a_gap(scores, 0.0) == 0.0


def test_the_cost_on_the_fitted_pictures_is_within_the_budget_for_every_rule() -> None:
    answers = replace(two_stages(700, 3.0), another=np.random.default_rng(5).normal(0, 1, 700))
    stages = answers.calibrated(fit_cascade(answers, terms(0.2)).calibrators)
    for routing in ROUTINGS:
        rule, _ = fit_rules(routing, "product", 0.2, stages, 5)
        assert rule.route(stages.main, stages.another).mean() <= 0.2 + 1e-9


def test_where_it_costs_nothing_the_rule_that_finds_two_environments_is_preferred() -> None:
    answers = two_stages(1500, 4.0)
    gap = np.diff(np.sort(answers.main, axis=1)[:, -2:], axis=1)[:, 0]
    helpful = replace(answers, another=-gap + np.random.default_rng(6).normal(0, 0.1, 1500))
    fitted = fit_cascade(helpful, terms(0.5))
    assert isinstance(fitted.rules.routing, AnotherClass)
    stages = helpful.calibrated(fitted.calibrators)
    output = run_cascade(fitted.rules, stages.main, stages.distance, known_answers(stages.submodels), stages.another)
    assert output.routed.mean() <= 0.5
    noise = replace(answers, another=np.random.default_rng(7).normal(0, 1, 1500))
    assert not isinstance(fit_cascade(noise, terms(0.3)).rules.routing, AnotherClass)  # it would cost accuracy
    assert not isinstance(fit_cascade(answers, terms(0.3)).rules.routing, AnotherClass)  # no maps


def test_the_evidence_goes_with_the_pictures_and_is_unknown_if_a_part_lacks_it() -> None:
    answers = replace(two_stages(50, 4.0), another=np.arange(50.0))
    assert answers.take(np.array([3, 7])).another.tolist() == [3, 7]  # type: ignore[union-attr]
    both = replace(answers, shifted=replace(answers, another=np.arange(50.0, 100)))
    assert both.with_copies().another.tolist() == list(range(100))  # type: ignore[union-attr]
    assert replace(answers, shifted=two_stages(50, 4.0)).with_copies().another is None


def test_a_class_never_predicted_is_not_routed_by_default() -> None:
    answers = two_stages(600, 3.0)
    never = replace(answers, main=answers.main - np.array([0, 0, 0, 0, 50.0]))
    stages = never.calibrated(Calibrators(1.0, np.ones(5), np.zeros(5)))
    rule, _ = fit_rules("per_class", "product", 0.2, stages, 5)
    assert isinstance(rule, PerClass)
    assert rule.thresholds[4] == 0


def test_with_nothing_routed_only_the_distance_marks() -> None:
    rng = np.random.default_rng(0)
    nothing = np.full((500, 3), np.nan)
    rule = fit_unsure(rng.chisquare(20, 500) / 20, nothing, 0.02)
    assert rule.submodels_below == 0
    asked = np.array([[0.01, 0.02, 0.03]])
    assert rule.score(np.array([0.5]), asked)[0] < 1


def test_what_lies_beyond_the_budget_does_not_count_as_compared() -> None:
    answers = two_stages(300, 4.0)
    narrow = terms(0.01)  # two or three pictures: too few to fit a rule on
    for known in (None, compare(answers, narrow, narrow.shares)):
        fitted = fit_cascade(answers, narrow, known)
        assert fitted.compared == 0
        assert fitted.rules.routing.name == "confidence"
        assert not fitted.routes_nothing


def near_and_far(count: int, seed: int) -> StageLogits:
    """Return logits of pictures at home, with shifted copies that are far and named wrongly more often."""
    home, rng = two_stages(count, 4.0, seed), np.random.default_rng([seed, 1])
    truth = np.eye(5)[home.targets]
    far = rng.uniform(1.5, 4, count)
    blind = rng.normal(0, 1, (count, 5)) * far[:, None]
    shifted = StageLogits(truth + blind, far, 2 * truth - 2 + blind, home.targets)
    return replace(home, shifted=shifted)


def test_shifted_pictures_teach_how_fast_to_soften_and_pictures_at_home_keep_their_probabilities() -> None:
    fitted = fit_cascade(near_and_far(1500, 0), terms(0.5))
    assert fitted.rules.distance_calibration.slope > 0.2
    unseen = near_and_far(1500, 1)
    assert unseen.shifted
    alike = msgspec.structs.replace(fitted.rules, distance_calibration=EVERYWHERE_ALIKE)
    hard = replace(fitted, rules=alike)
    errors = [
        expected_calibration_error(answer(one, unseen.shifted).probabilities, unseen.targets) for one in (fitted, hard)
    ]
    assert errors[0] < errors[1] / 2
    home = answer(fitted, unseen), answer(hard, unseen)
    sure = ~home[0].unsure
    assert (home[0].probabilities[sure] == home[1].probabilities[sure]).all()


def test_without_anything_to_learn_from_probabilities_do_not_soften() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 200)
    honest = 0.9 * np.eye(3)[targets] + 0.1 / 3
    far = rng.uniform(1, 5, 200)
    assert fit_distance_calibration(honest, far, targets, 1.0).slope == 0
    guesses = 0.9 * np.eye(3)[rng.integers(0, 3, 200)] + 0.1 / 3
    slope = fit_distance_calibration(guesses, far, targets, 1.0)
    assert soften(guesses, slope.temperature(far))[far > 3].max() < 0.45


@pytest.mark.parametrize("right", [0, 30, 90, 100])
def test_marked_answers_show_the_share_of_them_that_is_right(right: int) -> None:
    sure = np.tile([0.97, 0.02, 0.01], (100, 1))
    rule = with_deserved(
        fit_unsure(np.ones(10), np.full((10, 3), np.nan), 0.0), sure, np.repeat([0, 1], [right, 100 - right])
    )
    shown = rule.limited(sure, np.ones(100, dtype=bool)).max(axis=1)
    assert shown == pytest.approx(max(1 / 3, min((right + 1) / 102, MOST_UNSURE)), abs=1e-3)


def test_no_row_is_marked_unsure_and_above_nine_tenths() -> None:
    answers = near_and_far(600, 3)
    for fitted in (fit_cascade(answers, terms(0.5)), fit_cascade(replace(answers, shifted=None), terms(0.5))):
        for part in (answers, answers.shifted):
            assert part
            output = answer(fitted, part)
            assert output.probabilities[output.unsure].max(initial=0) <= MOST_UNSURE
