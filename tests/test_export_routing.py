"""Choosing the cascade's rules."""

import numpy as np
import pytest
from scipy.special import softmax

from cascade.errors import CanonistiaError
from cascade.metrics import top_k_hits
from cascade.rules import Confidence, LogLinear, Product, known_answers, route, run_cascade
from export.routing import Answers, check_class_counts, fit_cascade, out_of_fold


def two_stages(count: int, submodel_skill: float, seed: int = 0) -> Answers:
    """Return answers of a fair main model, and of submodels that know the truth with the given strength."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 5, count)
    truth = np.eye(5)[targets]
    main = 2.5 * truth + rng.normal(0, 1, (count, 5))
    submodels = submodel_skill * (truth - 0.3) + rng.normal(0, 1, (count, 5))
    return Answers(main, submodels, targets)


def accuracy(answers: Answers, probabilities: np.ndarray) -> float:
    return float(top_k_hits(probabilities, answers.targets)[0].mean())


def test_good_submodels_raise_the_accuracy_on_unseen_pictures() -> None:
    fitted = fit_cascade(two_stages(1500, 4.0), candidates=5, max_routed=0.5, seed=0)
    unseen = two_stages(3000, 4.0, seed=1)
    main = fitted.calibrators.main(unseen.main)
    output = run_cascade(fitted.rules, main, known_answers(fitted.calibrators.submodels(unseen.submodels)))
    assert accuracy(unseen, output.probabilities) > accuracy(unseen, main) + 0.05
    assert output.routed.mean() <= 0.55


def test_useless_submodels_do_no_harm() -> None:
    answers = two_stages(1500, 0.0)
    unseen = out_of_fold(answers, candidates=5, max_routed=0.3, seed=0)
    assert accuracy(answers, unseen.cascade.probabilities) >= accuracy(answers, unseen.cascade.main) - 0.01


def test_no_more_is_routed_than_allowed() -> None:
    answers = two_stages(1500, 4.0)
    for limit in (0.05, 0.2):
        unseen = out_of_fold(answers, candidates=5, max_routed=limit, seed=0)
        assert unseen.cascade.routed.mean() <= limit + 0.03


def test_the_threshold_lies_between_two_pictures() -> None:
    answers = two_stages(600, 3.0)
    fitted = fit_cascade(answers, candidates=5, max_routed=0.5, seed=0)
    scores = fitted.rules.routing.score(fitted.calibrators.main(answers.main))
    assert np.abs(scores - fitted.rules.routing.threshold).min() >= 1e-4


def test_with_too_few_doubtful_pictures_the_simplest_rule_is_kept() -> None:
    fitted = fit_cascade(two_stages(30, 4.0), candidates=5, max_routed=0.3, seed=0)
    assert isinstance(fitted.rules.routing, Confidence)
    assert isinstance(fitted.rules.decision, Product)
    assert fitted.rules.routing.threshold > 0


def test_a_class_with_too_few_pictures_is_named() -> None:
    with pytest.raises(CanonistiaError, match=r"has 2 pictures of sky; .* at least 3 of every class"):
        check_class_counts(np.array([0, 0, 0, 1, 1]), ["dots", "sky"])


def test_three_pictures_a_class_are_enough() -> None:
    answers = two_stages(200, 4.0)
    few = np.concatenate([np.flatnonzero(answers.targets == label)[:3] for label in range(5)])
    unseen = out_of_fold(answers.take(few), candidates=5, max_routed=0.3, seed=0)
    assert np.isfinite(unseen.cascade.probabilities).all()


def test_a_weak_main_model_does_not_break_the_limit() -> None:
    answers = two_stages(600, 4.0)
    weak = Answers(np.random.default_rng(3).normal(0, 1, (600, 5)), answers.submodels, answers.targets)
    fitted = fit_cascade(weak, candidates=5, max_routed=0.1, seed=0)
    routed = route(fitted.rules.routing, fitted.calibrators.main(weak.main))
    assert routed.mean() <= 0.13


def test_submodels_that_mislead_are_not_asked() -> None:
    answers = two_stages(1500, -3.0)
    shuffled = np.random.default_rng(4).permutation(answers.submodels)
    fitted = fit_cascade(Answers(answers.main, shuffled, answers.targets), candidates=5, max_routed=0.9, seed=0)
    main = fitted.calibrators.main(answers.main)
    output = run_cascade(fitted.rules, main, known_answers(fitted.calibrators.submodels(shuffled)))
    assert accuracy(answers, output.probabilities) >= accuracy(answers, main) - 0.005


def test_the_weights_do_not_depend_on_pictures_whose_class_was_not_asked() -> None:
    answers = two_stages(2000, 4.0)
    fitted = fit_cascade(answers, candidates=3, max_routed=0.6, seed=0)
    assert isinstance(fitted.rules.decision, LogLinear | Product)
    if isinstance(fitted.rules.decision, LogLinear):
        assert fitted.rules.decision.submodel_weight > 0.5
    unseen = two_stages(3000, 4.0, seed=1)
    main = fitted.calibrators.main(unseen.main)
    output = run_cascade(fitted.rules, main, known_answers(fitted.calibrators.submodels(unseen.submodels)))
    assert accuracy(unseen, output.probabilities) > accuracy(unseen, main) + 0.04


def test_two_classes_are_enough() -> None:
    answers = two_stages(900, 4.0)
    kept = np.flatnonzero(answers.targets < 2)
    two = Answers(answers.main[kept, :2], answers.submodels[kept, :2], answers.targets[kept])
    unseen = out_of_fold(two, candidates=2, max_routed=0.5, seed=0)
    assert accuracy(two, unseen.cascade.probabilities) >= accuracy(two, unseen.cascade.main)


def test_main_probabilities_out_of_fold_are_close_to_the_fitted_ones() -> None:
    answers = two_stages(1500, 3.0)
    unseen = out_of_fold(answers, candidates=5, max_routed=0.3, seed=0)
    assert np.abs(unseen.cascade.main - softmax(answers.main, axis=1)).mean() < 0.1
    assert unseen.submodels.shape == (1500, 5)
