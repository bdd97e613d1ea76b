"""Calibration recovers what it is given."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import roc_auc_score

from cascade.evaluation.metrics import expected_calibration_error
from cascade.rules.probabilities import logsumexp
from export.fitting.calibration import fit_calibrators, fit_distance_correction, fit_platt, fit_temperature


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_scaled_the_logits_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    honest = 2 * rng.normal(size=(6000, 4))
    targets = np.array([rng.choice(4, p=row) for row in softmax(honest, axis=1)])
    assert fit_temperature(honest * temperature, targets) == pytest.approx(temperature, rel=0.06)


def test_platt_finds_the_curve_that_made_the_labels() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, 8000)
    labels = rng.random(8000) < expit(0.7 * logits - 1.2)
    slope, intercept = fit_platt(logits, labels)
    assert (slope, intercept) == pytest.approx((0.7, -1.2), rel=0.1)


def test_platt_stays_finite_on_separable_logits() -> None:
    slope, intercept = fit_platt(np.array([-3.0, -2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    assert np.isfinite([slope, intercept]).all()
    assert 0 < slope < 10


def test_calibration_lowers_the_error_on_unseen_pictures() -> None:
    rng = np.random.default_rng(2)
    honest = rng.normal(size=(4000, 5))
    targets = np.array([rng.choice(5, p=row) for row in softmax(honest, axis=1)])
    loud = honest * 4
    seen, unseen = slice(0, 2000), slice(2000, None)
    calibrators = fit_calibrators(loud[seen], np.ones(2000), loud[seen], targets[seen])
    before = expected_calibration_error(softmax(loud[unseen], axis=1), targets[unseen])
    after = expected_calibration_error(calibrators.main(loud[unseen]), targets[unseen])
    assert before > 0.2
    assert after < 0.05
    answers = calibrators.submodels(loud[unseen])
    assert answers.shape == (2000, 5)
    assert answers[:, 0].mean() == pytest.approx((targets[unseen] == 0).mean(), abs=0.03)


def test_the_corrected_distance_finds_pictures_of_no_class_better_than_distance_or_energy_alone() -> None:
    rng = np.random.default_rng(3)

    def pictures(farther: float, weaker: float) -> tuple[np.ndarray, np.ndarray]:
        logits = rng.normal(size=(2000, 5))
        logits[:, 0] += 8 - weaker * 1.5 + rng.normal(scale=1.5, size=2000)
        return np.exp(rng.normal(scale=0.3, size=2000) + farther * 0.3), logits

    known, strange = pictures(0, 0), pictures(1, 1)
    correction = fit_distance_correction(*known)

    def found(score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        return roc_auc_score(np.repeat([0, 1], 2000), np.concatenate([score(*known), score(*strange)]))

    alone = found(lambda distance, logits: distance), found(lambda distance, logits: -logsumexp(logits))
    assert found(correction.corrected) > max(alone) + 0.03
    assert np.median(correction.corrected(*known)) == pytest.approx(1, abs=0.1)


def test_a_distance_or_an_energy_that_tells_nothing_corrects_nothing() -> None:
    logits = np.random.default_rng(4).normal(size=(100, 5))
    assert fit_distance_correction(np.ones(100), logits).weight == 0
    assert fit_distance_correction(np.linspace(1, 2, 100), np.ones((100, 5))).weight == 0
