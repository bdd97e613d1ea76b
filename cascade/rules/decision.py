"""Decision rules: how the classes of a routed picture are ordered.

Array names: ``main`` is the main model's calibrated probabilities (N, K); ``submodels`` the calibrated answers to
"is it this class?" (N, K), NaN where a submodel was not asked.
"""

import numpy as np

from cascade.rules.probabilities import TINY, log_odds
from cascade.rules.rule import Rule


class HighestSubmodel(Rule, frozen=True, tag="highest_submodel"):
    """Order by the submodels alone: the most confident one wins (the seed rule)."""

    def log_score(self, main: np.ndarray, submodels: np.ndarray) -> np.ndarray:
        """Return the unnormalised log probability of each class, (N, K)."""
        return np.log(np.maximum(submodels, TINY))


class Product(Rule, frozen=True, tag="product"):
    """Order by main probability times submodel probability."""

    def log_score(self, main: np.ndarray, submodels: np.ndarray) -> np.ndarray:
        """Return the unnormalised log probability of each class, (N, K)."""
        return np.log(np.maximum(main, TINY)) + np.log(np.maximum(submodels, TINY))


class LogLinear(Rule, frozen=True, tag="log_linear"):
    """Order by a weighted sum of the main log probability and the submodel log odds, both weights fitted.

    It is a conditional logit over the classes, with two weights for any number of classes.
    """

    main_weight: float
    submodel_weight: float

    def log_score(self, main: np.ndarray, submodels: np.ndarray) -> np.ndarray:
        """Return the unnormalised log probability of each class, (N, K)."""
        return self.main_weight * np.log(np.maximum(main, TINY)) + self.submodel_weight * log_odds(submodels)


Decision = HighestSubmodel | Product | LogLinear


def decide(decision: Decision, main: np.ndarray, submodels: np.ndarray) -> np.ndarray:
    """Return the probabilities of routed pictures after the submodels answered, (N, K), each row summing to 1.

    The classes asked about keep their total main probability, which the submodels' answers divide among them; a class
    not asked about keeps its main probability.
    """
    asked = ~np.isnan(submodels)  # (N, K)
    scores = np.where(asked, decision.log_score(main, submodels), -np.inf)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    mass = np.where(asked, main, 0).sum(axis=1, keepdims=True)  # (N, 1)
    return np.where(asked, shares * mass, main)
