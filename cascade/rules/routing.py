"""Routing rules: which pictures the main model is not sure enough about.

``main`` is the main model's calibrated probabilities, (N, K).
"""

from typing import Annotated

import msgspec
import numpy as np

from cascade.rules.probabilities import TINY, log_odds
from cascade.rules.rule import Rule

Threshold = Annotated[float, msgspec.Meta(ge=0, le=1.01)]  # just over 1 routes every picture


class Confidence(Rule, frozen=True, tag="confidence"):
    """Route when the highest probability is below the threshold (Chow's rule)."""

    threshold: Threshold

    @staticmethod
    def score(main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: the highest probability, (N,)."""
        return main.max(axis=1)


class Margin(Rule, frozen=True, tag="margin"):
    """Route when the gap between the two highest probabilities is below the threshold."""

    threshold: Threshold

    @staticmethod
    def score(main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: the gap between the two highest probabilities, (N,)."""
        two = np.partition(main, -2, axis=1)[:, -2:]  # (N, 2)
        return two[:, 1] - two[:, 0]


class Entropy(Rule, frozen=True, tag="entropy"):
    """Route when one less the entropy, as a share of the greatest possible, is below the threshold."""

    threshold: Threshold

    @staticmethod
    def score(main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: 1 for one certain class, 0 for all alike, (N,)."""
        logs = np.log(np.maximum(main, TINY))
        return 1 + (main * logs).sum(axis=1) / np.log(main.shape[1])


class PerClass(Rule, frozen=True, tag="per_class"):
    """Route when the highest probability is below the threshold of its class (FrugalML, arXiv 2006.07512)."""

    thresholds: list[Threshold]

    @staticmethod
    def score(main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: the highest probability, (N,)."""
        return main.max(axis=1)


class Deferral(Rule, frozen=True, tag="deferral"):
    """Route when the submodels are expected to help: a learned rule (arXiv 2307.02764).

    Two logistic models of what :func:`doubt_features` returns say how likely it is that the submodels mend the main
    model's answer, and that they spoil it. ``helps`` and ``hurts`` hold their weights: intercept, one a feature, and
    one a predicted class.
    """

    helps: list[float]
    hurts: list[float]
    threshold: Threshold

    def score(self, main: np.ndarray) -> np.ndarray:
        """Return (1 + P(spoilt) - P(mended)) / 2 for each picture, (N,): below one half, routing is expected to pay."""
        features = doubt_features(main)  # (N, F)
        spoilt, mended = (_sigmoid(features @ np.array(weights)) for weights in (self.hurts, self.helps))
        return (1 + spoilt - mended) / 2


Routing = Confidence | Margin | Entropy | PerClass | Deferral

NEVER = Confidence(threshold=0)  # routes nothing


def route(routing: Routing, main: np.ndarray) -> np.ndarray:
    """Return which pictures go to the submodels, (N,) bool."""
    if isinstance(routing, PerClass):
        return routing.score(main) < np.array(routing.thresholds)[main.argmax(axis=1)]
    return routing.score(main) < routing.threshold


def doubt_features(main: np.ndarray) -> np.ndarray:
    """Return what a learned routing rule sees of the main model's answer, (N, 4 + K).

    One, the log odds of the highest probability, the log of its ratio to the second, the entropy's complement of
    :class:`Entropy`, and the predicted class as zeros and a one.
    """
    two = np.sort(main, axis=1)[:, -2:].astype(np.float64)  # (N, 2)
    # Beyond e^10 to one, differences are rounding.
    odds = np.clip(log_odds(two[:, 1]), -10, 10)
    ratio = np.clip(np.log(np.maximum(two[:, 1], TINY) / np.maximum(two[:, 0], TINY)), 0, 10)
    predicted = np.eye(main.shape[1])[main.argmax(axis=1)]
    return np.column_stack([np.ones(len(main)), odds, ratio, Entropy.score(main), predicted])


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))
