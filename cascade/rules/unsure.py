"""Doubt: the mark unsure, and the order in which answers are doubtful."""

from typing import Annotated

import msgspec
import numpy as np


class Unsure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When an answer is marked unsure: the picture is unlike the training pictures, or no submodel recognises it.

    Both limits are fitted so that together they mark ``false_alarm_rate`` of the validation pictures, all of which
    show a known class. A marked answer's first probability is at most ``highest_probability``, which such answers
    deserve: about as many of them are right.
    """

    distance_above: Annotated[float, msgspec.Meta(gt=0)]
    submodels_below: Annotated[float, msgspec.Meta(ge=0, lt=1)]  # the highest answer, where submodels were asked
    false_alarm_rate: Annotated[float, msgspec.Meta(ge=0, lt=1)]
    highest_probability: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0

    def score(self, distance: np.ndarray, submodels: np.ndarray) -> np.ndarray:
        """Return how doubtful each picture is, (N,); above 1 it is marked.

        ``distance`` (N,) is the main model's; ``submodels`` (N, K) holds NaN where not asked.
        """
        refused = (1 - best_answers(submodels)) / (1 - self.submodels_below)
        return np.maximum(distance / self.distance_above, refused)

    def limited(self, probabilities: np.ndarray, marked: np.ndarray) -> np.ndarray:
        """Return probabilities (N, K) whose highest is at most ``highest_probability`` where ``marked`` (N,) bool.

        Such a row is mixed with equal probabilities, so that the order of its classes stays.
        """
        equal, highest = 1 / probabilities.shape[1], probabilities.max(axis=1)  # (N,)
        most = max(self.highest_probability, equal)
        over = marked & (highest > most)
        kept = np.where(over, (most - equal) / np.where(over, highest - equal, 1), 1)[:, None]  # (N, 1)
        return np.where(over[:, None], kept * probabilities + (1 - kept) * equal, probabilities)

    def recognised(self, submodels: np.ndarray) -> np.ndarray:
        """Return whether a submodel recognises each picture (N,), or none was asked, from answers (N, K)."""
        return best_answers(submodels) >= self.submodels_below


NO_MARK = Unsure(distance_above=1.0, submodels_below=0.0, false_alarm_rate=0.0)  # before the limits are fitted


def best_answers(submodels: np.ndarray) -> np.ndarray:
    """Return the highest answer about each picture (N,), of answers (N, K) with NaN where not asked; 1 if none was."""
    asked = ~np.isnan(submodels).all(axis=1)  # (N,)
    return np.where(asked, np.where(np.isnan(submodels), 0, submodels).max(axis=1), 1)


def doubtfulness(unsure: bool, probability_1: float, probability_2: float) -> float:
    """Return the sort key of answers by doubt, in [0, 2]; the most doubtful answer has the highest.

    Answers marked unsure come first; among equals, the answer whose two classes are closest in probability.
    """
    return float(unsure) + 1 - (probability_1 - probability_2)
