"""The rules of the cascade: which pictures are routed, whom the submodels are asked about, how the classes are ordered.

Array names: ``main`` is the main model's calibrated probabilities (N, K); ``submodels`` the calibrated answers to
"is it this class?" (N, K), NaN where a submodel was not asked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

# Keeps a logarithm finite; far below any probability that a calibrated float32 model tells apart.
_TINY = 1e-12


Threshold = Annotated[float, msgspec.Meta(ge=0, le=1.01)]  # just over 1 routes every picture


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="rule"):
    """A rule of the bundle; its name is stored in the field ``rule``."""

    @property
    def name(self) -> str:
        """Return the rule's name."""
        return str(self.__struct_config__.tag)


class Confidence(_Rule, frozen=True, tag="confidence"):
    """Route when the highest probability is below the threshold (Chow's rule)."""

    threshold: Threshold

    @staticmethod
    def score(main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: the highest probability, (N,)."""
        return main.max(axis=1)


class Margin(_Rule, frozen=True, tag="margin"):
    """Route when the gap between the two highest probabilities is below the threshold."""

    threshold: Threshold

    @staticmethod
    def score(main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: the gap between the two highest probabilities, (N,)."""
        two = np.partition(main, -2, axis=1)[:, -2:]  # (N, 2)
        return two[:, 1] - two[:, 0]


class Entropy(_Rule, frozen=True, tag="entropy"):
    """Route when one less the entropy, as a share of the greatest possible, is below the threshold."""

    threshold: Threshold

    @staticmethod
    def score(main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: 1 for one certain class, 0 for all alike, (N,)."""
        logs = np.log(np.maximum(main, _TINY))
        return 1 + (main * logs).sum(axis=1) / np.log(main.shape[1])


class PerClass(_Rule, frozen=True, tag="per_class"):
    """Route when the highest probability is below the threshold of its class (FrugalML, arXiv 2006.07512)."""

    thresholds: list[Threshold]

    @staticmethod
    def score(main: np.ndarray) -> np.ndarray:
        """Return how sure the main model is: the highest probability, (N,)."""
        return main.max(axis=1)


class Deferral(_Rule, frozen=True, tag="deferral"):
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


class HighestSubmodel(_Rule, frozen=True, tag="highest_submodel"):
    """Order by the submodels alone: the most confident one wins (the seed rule)."""

    def log_score(self, main: np.ndarray, submodels: np.ndarray) -> np.ndarray:
        """Return the unnormalised log probability of each class, (N, K)."""
        return np.log(np.maximum(submodels, _TINY))


class Product(_Rule, frozen=True, tag="product"):
    """Order by main probability times submodel probability."""

    def log_score(self, main: np.ndarray, submodels: np.ndarray) -> np.ndarray:
        """Return the unnormalised log probability of each class, (N, K)."""
        return np.log(np.maximum(main, _TINY)) + np.log(np.maximum(submodels, _TINY))


class LogLinear(_Rule, frozen=True, tag="log_linear"):
    """Order by a weighted sum of the main log probability and the submodel log odds, both weights fitted.

    It is a conditional logit over the classes: two numbers, whatever the number of classes.
    """

    main_weight: float
    submodel_weight: float

    def log_score(self, main: np.ndarray, submodels: np.ndarray) -> np.ndarray:
        """Return the unnormalised log probability of each class, (N, K)."""
        return self.main_weight * np.log(np.maximum(main, _TINY)) + self.submodel_weight * log_odds(submodels)


Routing = Confidence | Margin | Entropy | PerClass | Deferral
Decision = HighestSubmodel | Product | LogLinear

NEVER = Confidence(threshold=0)  # routes nothing


class Unsure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When an answer is marked: the picture is unlike the training pictures, or no submodel recognises it.

    Both limits are fitted so that together they mark ``false_alarm_rate`` of the validation pictures, all of which
    are of a known class.
    """

    distance_above: Annotated[float, msgspec.Meta(gt=0)]
    submodels_below: Annotated[float, msgspec.Meta(ge=0, lt=1)]  # the highest answer, where submodels were asked
    false_alarm_rate: Annotated[float, msgspec.Meta(ge=0, lt=1)]

    def score(self, distance: np.ndarray, submodels: np.ndarray) -> np.ndarray:
        """Return how doubtful each picture is, (N,); above 1 it is marked.

        ``distance`` (N,) is the main model's; ``submodels`` (N, K) holds NaN where not asked.
        """
        refused = (1 - best_answers(submodels)) / (1 - self.submodels_below)
        return np.maximum(distance / self.distance_above, refused)


class CascadeRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rules of one bundle, fitted on validation pictures."""

    routing: Routing
    candidates: Annotated[int, msgspec.Meta(ge=2)]  # how many of the main model's most likely classes are asked
    decision: Decision
    unsure: Unsure


@dataclass(frozen=True)
class CascadeOutput:
    """What both stages said about N pictures, K classes."""

    main: np.ndarray  # (N, K) calibrated probabilities of the main model
    submodels: np.ndarray  # (N, K) calibrated answers of the submodels, NaN where not asked
    probabilities: np.ndarray  # (N, K) the final probabilities
    routed: np.ndarray  # (N,) bool
    doubt: np.ndarray  # (N,) how unlike a known class; above 1 the picture is marked unsure

    @property
    def unsure(self) -> np.ndarray:
        """Return which pictures are marked, (N,) bool."""
        return self.doubt > 1


def run_cascade(
    rules: CascadeRules,
    main: np.ndarray,
    distance: np.ndarray,
    ask: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> CascadeOutput:
    """Return what the cascade says, given the main model's probabilities (N, K) and distances (N,).

    ``ask`` is called once, when anything is routed, with the routed rows (M,) and the classes asked about (M, K)
    bool; it returns the submodels' answers (M, K), NaN where not asked.
    """
    routed = route(rules.routing, main)
    submodels = np.full(main.shape, np.nan, dtype=np.float64)
    final = main.astype(np.float64)
    rows = np.flatnonzero(routed)
    if rows.size:
        submodels[rows] = ask(rows, candidate_classes(main[rows], rules.candidates))
        final[rows] = decide(rules.decision, final[rows], submodels[rows])
    return CascadeOutput(main, submodels, final, routed, rules.unsure.score(distance, submodels))


def known_answers(answers: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return an ``ask`` for :func:`run_cascade` that looks up answers (N, K) given beforehand."""
    return lambda rows, asked: np.where(asked, answers[rows], np.nan)


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)), finite at 0 and 1; NaN stays NaN."""
    kept = np.clip(probabilities, _TINY, 1 - _TINY)
    return np.log(kept) - np.log1p(-kept)


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
    ratio = np.clip(np.log(np.maximum(two[:, 1], _TINY) / np.maximum(two[:, 0], _TINY)), 0, 10)
    predicted = np.eye(main.shape[1])[main.argmax(axis=1)]
    return np.column_stack([np.ones(len(main)), odds, ratio, Entropy.score(main), predicted])


def candidate_classes(main: np.ndarray, count: int) -> np.ndarray:
    """Return which classes are asked about: the ``count`` most likely ones of each picture, (N, K) bool."""
    order = np.argsort(-main, axis=1, kind="stable")[:, :count]  # (N, count)
    asked = np.zeros(main.shape, dtype=bool)
    np.put_along_axis(asked, order, True, axis=1)
    return asked


def decide(decision: Decision, main: np.ndarray, submodels: np.ndarray) -> np.ndarray:
    """Return the probabilities of routed pictures after the submodels answered, (N, K), rows summing to 1.

    The submodels share out anew what the main model gave to the classes that were asked about; a class that was
    not asked keeps its main probability.
    """
    asked = ~np.isnan(submodels)  # (N, K)
    scores = np.where(asked, decision.log_score(main, submodels), -np.inf)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    mass = np.where(asked, main, 0).sum(axis=1, keepdims=True)  # (N, 1)
    return np.where(asked, shares * mass, main)


def best_answers(submodels: np.ndarray) -> np.ndarray:
    """Return the highest answer about each picture (N,), of answers (N, K) with NaN where not asked; 1 if none was."""
    asked = ~np.isnan(submodels).all(axis=1)  # (N,)
    return np.where(asked, np.where(np.isnan(submodels), 0, submodels).max(axis=1), 1)


def top_two(probabilities: np.ndarray) -> np.ndarray:
    """Return the indices of the two most likely classes, most likely first, (N, 2); ties go to the earlier class."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :2]


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))
