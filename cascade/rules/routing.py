"""Routing rules: which pictures the main model is not sure enough about.

To add a rule, write a class and add it to :data:`Routing`. A rule with one threshold derives from
:class:`OneThreshold` and defines ``score``; any other rule defines every method that :class:`OneThreshold` has.
A rule that is to be fitted at export is added to ``ROUTINGS`` in ``export/fitting/routing.py``, too.

``main`` is the main model's calibrated probabilities, (N, K). ``another`` is the evidence of another class in a part of
each picture, (N,) (:func:`cascade.rules.another_class.another_class`); None where the main model gives no maps.
"""

from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np

from cascade.rules.another_class import given
from cascade.rules.probabilities import TINY, log_odds
from cascade.rules.rule import Rule
from cascade.rules.thresholds import Threshold, at_count, at_share, in_a_gap


class OneThreshold(Rule, frozen=True, kw_only=True):
    """A rule that routes the pictures whose score is below one threshold, the same for every class."""

    threshold: Threshold

    def score(self, main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is, (N,): 0 for not at all, 1 for certain."""
        raise NotImplementedError(f"the routing rule {self.name} defines no score")

    def hesitates(self, main: np.ndarray) -> np.ndarray:
        """Return about which pictures the main model is not sure enough, (N,) bool."""
        if self.threshold == 0:  # rounding can give a score just below 0
            return np.zeros(len(main), dtype=bool)
        return self.score(main) < self.threshold

    def route(self, main: np.ndarray, another: np.ndarray | None = None) -> np.ndarray:
        """Return which pictures go to the submodels, (N,) bool."""
        return self.hesitates(main)

    @property
    def routes_nothing(self) -> bool:
        """Return whether no picture goes to the submodels, whatever its probabilities."""
        return self.threshold == 0

    @property
    def needs_maps(self) -> bool:
        """Return whether the rule asks for the evidence of another class, for which there must be activation maps."""
        return False

    @property
    def description(self) -> str:
        """Return the rule's thresholds in words, to follow its name."""
        nothing = " (nothing: the submodels did not help)" if self.routes_nothing else ""
        return f" below {self.threshold:.4f}{nothing}"

    def check(self, classes: int) -> None:
        """Raise ValueError unless the rule fits this number of classes."""

    def at_shares(
        self, main: np.ndarray, gain: np.ndarray, shares: Sequence[float], another: np.ndarray | None = None
    ) -> list[Self]:
        """Return the rule with its threshold set to route about this share of the pictures, for each of the shares.

        ``gain`` (N,) is the fall in log loss when a picture is routed; one threshold leaves no choice among them.
        """
        score = self.score(main)
        return [msgspec.structs.replace(self, threshold=at_share(score, share)) for share in shares]

    def settled(self, main: np.ndarray, another: np.ndarray | None = None) -> Self:
        """Return the rule with its threshold moved into a gap between two pictures, so that no more are routed.

        No picture given is then so near the threshold that float rounding could change whether it is routed.
        """
        return msgspec.structs.replace(self, threshold=in_a_gap(self.score(main), self.threshold))


class Confidence(OneThreshold, frozen=True, tag="confidence"):
    """Route when the highest probability is below the threshold (Chow's rule)."""

    def score(self, main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: the highest probability, (N,)."""
        return main.max(axis=1)


class Margin(OneThreshold, frozen=True, tag="margin"):
    """Route when the gap between the two highest probabilities is below the threshold."""

    def score(self, main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: the gap between the two highest probabilities, (N,)."""
        two = np.partition(main, -2, axis=1)[:, -2:]  # (N, 2)
        return two[:, 1] - two[:, 0]


class Entropy(OneThreshold, frozen=True, tag="entropy"):
    """Route when 1 minus the entropy, as a fraction of the greatest possible entropy, is below the threshold."""

    def score(self, main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: 1 for one certain class, 0 for all alike, (N,)."""
        return _concentration(main)


class PerClass(Rule, frozen=True, tag="per_class"):
    """Route when the highest probability is below the threshold of its class (FrugalML, arXiv 2006.07512)."""

    thresholds: list[Threshold]

    def score(self, main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: the highest probability, (N,)."""
        return main.max(axis=1)

    def hesitates(self, main: np.ndarray) -> np.ndarray:
        """Return about which pictures the main model is not sure enough, (N,) bool."""
        return self.score(main) < np.array(self.thresholds)[main.argmax(axis=1)]

    def route(self, main: np.ndarray, another: np.ndarray | None = None) -> np.ndarray:
        """Return which pictures go to the submodels, (N,) bool."""
        return self.hesitates(main)

    @property
    def routes_nothing(self) -> bool:
        """Return whether no picture goes to the submodels, whatever its probabilities."""
        return not any(self.thresholds)

    @property
    def needs_maps(self) -> bool:
        """Return whether the rule asks for the evidence of another class, for which there must be activation maps."""
        return False

    @property
    def description(self) -> str:
        """Return the rule's thresholds in words, to follow its name."""
        return " (thresholds in bundle.json)"

    def check(self, classes: int) -> None:
        """Raise ValueError unless the rule fits this number of classes."""
        if len(self.thresholds) != classes:
            raise ValueError(f"{len(self.thresholds)} routing thresholds, expected one for each of {classes}")

    def at_shares(
        self, main: np.ndarray, gain: np.ndarray, shares: Sequence[float], another: np.ndarray | None = None
    ) -> list[Self]:
        """Return the rule with the thresholds of greatest gain (N,) that route about this share, for each of them.

        One price per routed picture, the same for every class, stands for the share (FrugalML's Lagrangian): each
        class routes its least confident pictures as long as their total gain exceeds their total price.
        """
        confidence, predicted = self.score(main), main.argmax(axis=1)
        by_class = []  # for each class: ascending scores, and the total gain of routing the first 0, 1, 2 ... of them
        for label in range(main.shape[1]):
            indices = np.flatnonzero(predicted == label)
            indices = indices[np.argsort(confidence[indices], kind="stable")]
            by_class.append((confidence[indices], np.concatenate([[0.0], np.cumsum(gain[indices])])))

        def counts(price: float) -> list[int]:
            return [int((gained - price * np.arange(len(gained))).argmax()) for _, gained in by_class]

        def thresholds(share: float) -> list[float]:
            low, high = -1.0 - np.abs(gain).max(), 1.0 + np.abs(gain).max()
            wanted = share * len(main)
            for _ in range(40):
                price = (low + high) / 2
                low, high = (price, high) if sum(counts(price)) > wanted else (low, price)
            return [at_count(score, count) for (score, _), count in zip(by_class, counts(high), strict=True)]

        return [msgspec.structs.replace(self, thresholds=thresholds(share)) for share in shares]

    def settled(self, main: np.ndarray, another: np.ndarray | None = None) -> Self:
        """Return the rule with each threshold moved into a gap between two pictures of its class."""
        score, predicted = self.score(main), main.argmax(axis=1)
        thresholds = [in_a_gap(score[predicted == label], limit) for label, limit in enumerate(self.thresholds)]
        return msgspec.structs.replace(self, thresholds=thresholds)


class Deferral(OneThreshold, frozen=True, tag="deferral"):
    """Route when the submodels are expected to help: a learned rule (arXiv 2307.02764).

    Two logistic models over :func:`doubt_features` give the probability that the submodels correct the main model's
    answer, and the probability that they break it. ``helps`` and ``hurts`` hold their weights: the intercept, one
    weight per feature, and one weight per predicted class.
    """

    helps: list[float]
    hurts: list[float]

    def score(self, main: np.ndarray) -> np.ndarray:
        """Return (1 + P(broken) - P(corrected)) / 2 of each picture, (N,); below 0.5 routing is expected to help."""
        features = doubt_features(main)  # (N, F)
        broken, corrected = (_sigmoid(features @ np.array(weights)) for weights in (self.hurts, self.helps))
        return (1 + broken - corrected) / 2

    def check(self, classes: int) -> None:
        """Raise ValueError unless the rule fits this number of classes."""
        if {len(self.helps), len(self.hurts)} != {4 + classes}:
            raise ValueError(f"the learned routing rule needs {4 + classes} weights for {classes} classes, twice")


class AnotherClass(Entropy, frozen=True, tag="another_class"):
    """Route as :class:`Entropy` does, and also when another class is strong in a part of the picture.

    A picture of two environments is found so, though the main model is sure of one of them. Half of the routed pictures
    are those with most evidence of another class; the others are those with least concentrated probabilities.
    """

    above: float  # of the evidence of another class

    def route(self, main: np.ndarray, another: np.ndarray | None = None) -> np.ndarray:
        """Return which pictures go to the submodels, (N,) bool; ValueError without the evidence of another class."""
        return self.hesitates(main) | (given(another) > self.above)

    @property
    def routes_nothing(self) -> bool:
        """Return whether no picture goes to the submodels; some may always, by their evidence of another class."""
        return False

    @property
    def needs_maps(self) -> bool:
        """Return whether the rule asks for the evidence of another class, for which there must be activation maps."""
        return True

    @property
    def description(self) -> str:
        """Return the rule's thresholds in words, to follow its name."""
        return f" (entropy score below {self.threshold:.4f}, or evidence of another class above {self.above:.3f})"

    def at_shares(
        self, main: np.ndarray, gain: np.ndarray, shares: Sequence[float], another: np.ndarray | None = None
    ) -> list[Self]:
        """Return the rule with thresholds that route about this share of the pictures, for each of the shares."""
        score, evidence = self.score(main), given(another)
        ordered = np.sort(evidence)[::-1]
        fitted = []
        for share in shares:
            count = round(share / 2 * len(evidence))  # routed by their evidence
            lowest, next_one = ordered[max(0, count - 1)], ordered[min(count, len(ordered) - 1)]
            above = float((lowest + next_one) / 2) if count else float(ordered[0]) + 1
            others = np.flatnonzero(evidence <= above)
            wanted = share * len(evidence) - (len(evidence) - len(others))
            threshold = at_share(score[others], max(0.0, wanted / max(1, len(others))))
            fitted.append(msgspec.structs.replace(self, threshold=threshold, above=above))
        return fitted

    def settled(self, main: np.ndarray, another: np.ndarray | None = None) -> Self:
        """Return the rule with both thresholds moved into gaps between two pictures, so that no more are routed."""
        threshold = in_a_gap(self.score(main), self.threshold)
        return msgspec.structs.replace(self, threshold=threshold, above=-in_a_gap(-given(another), -self.above))


Routing = Confidence | Margin | Entropy | PerClass | Deferral | AnotherClass

NEVER = Confidence(threshold=0)  # routes nothing


def doubt_features(main: np.ndarray) -> np.ndarray:
    """Return the features that a learned routing rule has of the main model's answer, (N, 4 + K).

    They are 1, the log odds of the highest probability, the log of its ratio to the second highest, the score of
    :class:`Entropy`, and the predicted class, one-hot.
    """
    two = np.sort(main, axis=1)[:, -2:].astype(np.float64)  # (N, 2)
    # Beyond e^10 to one, differences are rounding.
    odds = np.clip(log_odds(two[:, 1]), -10, 10)
    ratio = np.clip(np.log(np.maximum(two[:, 1], TINY) / np.maximum(two[:, 0], TINY)), 0, 10)
    predicted = np.eye(main.shape[1])[main.argmax(axis=1)]
    return np.column_stack([np.ones(len(main)), odds, ratio, _concentration(main), predicted])


def _concentration(main: np.ndarray) -> np.ndarray:
    """Return 1 minus the entropy as a fraction of the greatest possible entropy, (N,)."""
    logs = np.log(np.maximum(main, TINY))
    return 1 + (main * logs).sum(axis=1) / np.log(main.shape[1])


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))
