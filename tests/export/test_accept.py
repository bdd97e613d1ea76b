"""Fitting the threshold of accepted answers."""

import numpy as np
import pytest

from cascade.rules.cascade import CascadeOutput
from export.fitting.accept import PromiseError, fewest_accepted, fit_accept, lower_bound, sizes_to_test


def answers(first: np.ndarray, right: np.ndarray, unsure: np.ndarray | None = None) -> tuple[CascadeOutput, np.ndarray]:
    """Return the output about N pictures of two classes with these first probabilities (N,), and their classes."""
    count = len(first)
    probabilities = np.column_stack([first, 1 - first])
    nothing = np.zeros(count)
    doubt = nothing if unsure is None else 2.0 * unsure
    output = CascadeOutput(
        main=probabilities,
        submodels=np.full((count, 2), np.nan),
        probabilities=probabilities,
        routed=nothing > 1,
        doubt=doubt,
        temperature=nothing + 1,
        both_margin=nothing - np.inf,
        accepted=nothing > 1,
    )
    return output, np.where(right, 0, 1)


def test_a_promise_of_99_needs_299_pictures_without_a_mistake_and_473_with_one() -> None:
    assert [fewest_accepted(mistakes, 0.99) for mistakes in (0, 1, 2)] == [299, 473, 628]
    assert fewest_accepted(0, 0.95) == 59
    assert sizes_to_test(1000, 0.99) == [299, 473, 628, 773, 913]
    assert sizes_to_test(298, 0.99) == []
    assert sizes_to_test(10_000, 0.99)[0] >= 1000  # of many pictures, the surest few hundred say little
    assert lower_bound(299, 299) >= 0.99 > lower_bound(298, 298)
    assert lower_bound(472, 473) >= 0.99 > lower_bound(471, 472)
    assert lower_bound(0, 5) == 0


def test_the_threshold_is_the_lowest_before_the_first_failure() -> None:
    first = np.linspace(0.999, 0.6, 1000)
    right = np.ones(1000, dtype=bool)
    right[[400, 480, 490]] = False  # 473 with one mistake hold; 628 with three do not; nothing beyond is tried
    output, targets = answers(first, right)
    accept = fit_accept(output, targets, 0.99)
    assert (accept.accepted, accept.mistakes, accept.pictures) == (473, 1, 1000)
    assert first[472] > accept.threshold > first[473]
    assert accept.accepts(output.probabilities, output.unsure).sum() == 473


def test_unsure_answers_are_neither_counted_nor_accepted() -> None:
    first = np.linspace(0.999, 0.6, 400)
    unsure = np.arange(400) % 4 == 0
    output, targets = answers(first, ~unsure, unsure)
    accept = fit_accept(output, targets, 0.99)
    assert (accept.accepted, accept.mistakes) == (299, 0)
    assert accept.accepts(output.probabilities, output.unsure).sum() == 299


def test_answers_of_equal_probability_are_accepted_together() -> None:
    output, targets = answers(np.full(350, 0.9), np.ones(350, dtype=bool))
    accept = fit_accept(output, targets, 0.99)
    assert accept.accepted == accept.accepts(output.probabilities, output.unsure).sum() == 350


@pytest.mark.parametrize(
    ("count", "wrong", "sentence"),
    [
        (
            120,
            [],
            r"0\.99 of the accepted .*only 120 are not marked unsure, and 299 .* add at least 179 labelled pictures",
        ),
        (
            600,
            [3, 50],
            r"2 of the 299 surest are wrong, and 628 .* add at least 329 labelled pictures, or give a lower",
        ),
    ],
)
def test_what_cannot_be_promised_says_how_many_more_pictures_are_needed(
    count: int, wrong: list[int], sentence: str
) -> None:
    right = np.ones(count, dtype=bool)
    right[wrong] = False
    with pytest.raises(PromiseError, match=sentence):
        fit_accept(*answers(np.linspace(0.999, 0.6, count), right), 0.99)


@pytest.mark.parametrize("accuracy", [0.95, 0.99])
def test_what_is_promised_holds_in_19_of_20_samples(accuracy: float) -> None:
    """The chance of being wrong grows as the probability falls, so the truth about each threshold is known."""
    rng = np.random.default_rng(5)
    steep = 100 * (1 - accuracy)
    made = broken = 0
    for _ in range(200):
        first = rng.uniform(0.5, 1, 800)
        right = rng.random(800) >= steep * (1 - first) ** 3
        try:
            accept = fit_accept(*answers(first, right), accuracy)
        except PromiseError:
            continue
        made += 1
        broken += steep * (1 - accept.threshold) ** 3 / 4 > 1 - accuracy  # the mean from the threshold to 1
    assert made >= 100
    assert broken / 200 <= 0.08
