"""Calibration recovers what it is given."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from cascade.evaluation.metrics import expected_calibration_error
from export.fitting.calibration import fit_calibrators, fit_platt, fit_temperature


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
    calibrators = fit_calibrators(loud[seen], loud[seen], targets[seen])
    before = expected_calibration_error(softmax(loud[unseen], axis=1), targets[unseen])
    after = expected_calibration_error(calibrators.main(loud[unseen]), targets[unseen])
    assert before > 0.2
    assert after < 0.05
    answers = calibrators.submodels(loud[unseen])
    assert answers.shape == (2000, 5)
    assert answers[:, 0].mean() == pytest.approx((targets[unseen] == 0).mean(), abs=0.03)
