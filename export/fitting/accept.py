"""Fitting the threshold of accepted answers, so that what it promises holds with confidence.

An answer is accepted by its first probability. Thresholds are tested from the strictest downwards, each by an exact
bound, and the first failure ends the search: so the error of all tests together is that of one (fixed-sequence testing,
Angelopoulos et al., arXiv 2110.01052). What is tested is fixed by the number of pictures, before any answer is seen.
"""

import numpy as np
from scipy.stats import beta, binom

from cascade.errors import CanonistiaError
from cascade.rules.accept import Accept
from cascade.rules.cascade import CascadeOutput

CONFIDENCE = 0.95
# The strictest threshold accepts this share at least: of many pictures, a few hundred of the surest say little, and one
# wrong label among them would end the search.
_LEAST_SHARE = 0.1


class PromiseError(CanonistiaError):
    """No threshold promises the accuracy with the pictures at hand."""


def lower_bound(right: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Return the exact lower bound of a share, one-sided (Clopper and Pearson, 1934)."""
    return float(beta.ppf(1 - confidence, right, total - right + 1)) if right else 0.0


def fewest_accepted(mistakes: int, accuracy: float, confidence: float = CONFIDENCE) -> int:
    """Return how many accepted pictures are needed, with this many mistakes among them, to promise an accuracy."""
    most = int((mistakes + 5 + 5 * np.sqrt(mistakes + 1)) / (1 - accuracy)) + 1
    return int(np.argmax(_allowed(np.arange(most + 1), accuracy, confidence) >= mistakes))


def sizes_to_test(count: int, accuracy: float, confidence: float = CONFIDENCE) -> list[int]:
    """Return how many of the surest of ``count`` answers are tested, ascending: where one more mistake is allowed."""
    counts = np.arange(count + 1)
    more = np.diff(_allowed(counts, accuracy, confidence), prepend=-1) > 0
    return [int(size) for size in counts[more] if size >= _LEAST_SHARE * count]


def fit_accept(output: CascadeOutput, targets: np.ndarray, accuracy: float, confidence: float = CONFIDENCE) -> Accept:
    """Return the threshold that accepts most answers and promises the accuracy, from answers out of fold.

    Raises
    ------
    PromiseError
        There is none; it says how many more pictures are needed at least.
    """
    first = output.probabilities.max(axis=1)  # (N,)
    sure = np.flatnonzero(~output.unsure)
    order = sure[np.argsort(-first[sure], kind="stable")]
    ordered = first[order]
    mistakes = np.cumsum(output.probabilities[order].argmax(axis=1) != targets[order])
    fitted: Accept | None = None
    failed = (len(order), 0)
    for size in sizes_to_test(len(order), accuracy, confidence):
        accepted = int(np.searchsorted(-ordered, -ordered[size - 1], side="right"))  # with all that are as probable
        wrong = int(mistakes[accepted - 1])
        if lower_bound(accepted - wrong, accepted, confidence) < accuracy:
            failed = (accepted, wrong)
            break
        lowest = ordered[accepted - 1]
        threshold = (lowest + ordered[accepted]) / 2 if accepted < len(order) else lowest
        fitted = Accept(float(threshold), accuracy, confidence, len(targets), accepted, wrong)
    if fitted is None:
        raise _refused(*failed, accuracy, confidence)
    return fitted


def _refused(surest: int, wrong: int, accuracy: float, confidence: float) -> PromiseError:
    needed = fewest_accepted(wrong, accuracy, confidence)
    wrongly = f"{wrong} of the {surest} surest are wrong" if wrong else f"only {surest} are not marked unsure"
    return PromiseError(
        f"no threshold promises that {accuracy:.4g} of the accepted answers are right: {wrongly}, and {needed} with no "
        f"more mistakes are needed; add at least {needed - surest} labelled pictures, or give a lower --accept"
    )


def _allowed(counts: np.ndarray, accuracy: float, confidence: float) -> np.ndarray:
    """Return the most mistakes among so many accepted answers (N,) with which the bound holds; -1 for none at all."""
    return binom.ppf(1 - confidence, counts, 1 - accuracy).astype(int) - 1
