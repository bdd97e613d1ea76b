"""The pixel budget: pixels decoded at the same time are limited."""

import time

import pytest

from webapp.problems import Problem
from webapp.requests.pixel_budget import PixelBudget


def test_pixels_are_decoded_within_a_budget_and_a_deadline() -> None:
    budget = PixelBudget(100)
    with budget.share(60, time.monotonic()), budget.share(40, time.monotonic()):
        for pixels in (1, 1000):
            with pytest.raises(Problem, match="too long"), budget.share(pixels, time.monotonic() + 0.02):
                pass
    with budget.share(1000, time.monotonic()):  # larger than the whole budget: alone
        pass
