"""Metrics against figures known from elsewhere."""

import numpy as np
import pytest
from scipy.stats import binomtest

from cascade.evaluation.metrics import (
    accuracy_summary,
    area_under_roc,
    confusion,
    exact_interval,
    expected_calibration_error,
    seed_score,
    wilson_interval,
)

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.1, 0.4], [0.2, 0.3, 0.5]])
TARGETS = np.array([0, 0, 2, 1])


def test_wilson_gives_the_textbook_interval() -> None:
    # Newcombe 1998, table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_wilson_stays_within_zero_and_one() -> None:
    assert wilson_interval(0, 10)[0] == pytest.approx(0)
    assert wilson_interval(10, 10)[1] == pytest.approx(1)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "total"), [(0, 1), (0, 33), (18, 33), (33, 33), (81, 263), (25, 1275), (3, 100_000)])
def test_the_exact_interval_is_that_of_clopper_and_pearson(hits: int, total: int) -> None:
    known = binomtest(hits, total).proportion_ci(0.95, "exact")
    assert exact_interval(hits, total) == pytest.approx((known.low, known.high), abs=1e-9)
    assert exact_interval(0, 0) == (0.0, 1.0)


def test_accuracies_count_first_and_second_place() -> None:
    figures = accuracy_summary(PROBABILITIES, TARGETS)
    assert figures["top1"] == 0.25
    assert figures["top2"] == 1.0


def test_confusion_has_true_classes_in_rows() -> None:
    assert confusion(PROBABILITIES, TARGETS).tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_calibration_error_is_the_mean_gap() -> None:
    # One picture a bin: gaps 0.3 (right at 0.7), 0.6, 0.5, 0.5 (wrong at these confidences; the last two share a bin).
    assert expected_calibration_error(PROBABILITIES, TARGETS) == pytest.approx((0.3 + 0.6 + 2 * 0.5) / 4)


def test_a_calibrated_coin_has_no_calibration_error() -> None:
    coin = np.full((10, 2), 0.5)
    assert expected_calibration_error(coin, np.array([0, 1] * 5)) == pytest.approx(0)


def test_the_seed_score_forgives_doubtful_answers_alone() -> None:
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],  # clear and right: 1
            [0.9, 0.1, 0.0],  # clear, the true class second: 0
            [0.5, 0.4, 0.1],  # doubtful and right: 0.8
            [0.5, 0.4, 0.1],  # doubtful, the true class second: 0.6
            [0.5, 0.4, 0.1],  # doubtful and third: 0
        ]
    )
    assert seed_score(probabilities, np.array([0, 1, 0, 1, 2])) == pytest.approx((1 + 0.8 + 0.6) / 5)


def test_the_area_under_roc_counts_ordered_pairs_and_ties_by_half() -> None:
    assert area_under_roc(np.array([1.0, 2.0]), np.array([3.0, 2.0, 0.0])) == pytest.approx(3.5 / 6)
