"""Choosing the cascade's rules."""

import numpy as np
import pytest
from scipy.special import softmax

from cascade.errors import CanonistiaError
from cascade.metrics import top_k_hits
from cascade.rules import Confidence, Product, candidate_classes, decide, route
from export.routing import Answers, fit_cascade, out_of_fold


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
    asked = np.where(candidate_classes(main, 5), fitted.calibrators.submodels(unseen.submodels), np.nan)
    routed = route(fitted.rules.routing, main)
    final = np.where(routed[:, None], decide(fitted.rules.decision, main, asked), main)
    assert accuracy(unseen, final) > accuracy(unseen, main) + 0.05
    assert routed.mean() <= 0.55


def test_useless_submodels_do_no_harm() -> None:
    answers = two_stages(1500, 0.0)
    unseen = out_of_fold(answers, candidates=5, max_routed=0.3, seed=0)
    assert accuracy(answers, unseen.probabilities) >= accuracy(answers, unseen.main) - 0.01


def test_no_more_is_routed_than_allowed() -> None:
    answers = two_stages(1500, 4.0)
    for limit in (0.05, 0.2):
        unseen = out_of_fold(answers, candidates=5, max_routed=limit, seed=0)
        assert unseen.routed.mean() <= limit + 0.03


def test_the_threshold_lies_between_two_pictures() -> None:
    answers = two_stages(600, 3.0)
    fitted = fit_cascade(answers, candidates=5, max_routed=0.5, seed=0)
    scores = fitted.rules.routing.score(fitted.calibrators.main(answers.main))
    below = scores[scores < fitted.rules.routing.threshold].max()
    above = scores[scores >= fitted.rules.routing.threshold].min()
    assert fitted.rules.routing.threshold == pytest.approx((below + above) / 2)


def test_with_too_few_doubtful_pictures_the_simplest_rule_is_kept() -> None:
    fitted = fit_cascade(two_stages(30, 4.0), candidates=5, max_routed=0.3, seed=0)
    assert isinstance(fitted.rules.routing, Confidence)
    assert isinstance(fitted.rules.decision, Product)


def test_a_class_with_one_picture_is_refused() -> None:
    answers = two_stages(60, 4.0)
    targets = np.where(answers.targets == 4, 3, answers.targets)
    targets[0] = 4
    with pytest.raises(CanonistiaError, match="fewer than two pictures"):
        fit_cascade(Answers(answers.main, answers.submodels, targets), candidates=5, max_routed=0.3, seed=0)


def test_main_probabilities_out_of_fold_are_close_to_the_fitted_ones() -> None:
    answers = two_stages(1500, 3.0)
    unseen = out_of_fold(answers, candidates=5, max_routed=0.3, seed=0)
    assert np.abs(unseen.main - softmax(answers.main, axis=1)).mean() < 0.1
    assert unseen.submodels.shape == (1500, 5)
