"""Fitting routing rules: which pictures go to the submodels, at a given share of them all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from cascade.rules.routing import AnotherClass, Confidence, Deferral, Entropy, Margin, PerClass, Routing, doubt_features
from export.fitting.stage_logits import Stages

SEES_TWO = "another_class"  # the rule that finds pictures of two environments, of which the main model is sure
_PENALTY = 0.3  # inverse strength of the pull of the learned rule's weights to zero


@dataclass(frozen=True)
class Gains:
    """The effect of routing each picture (N,): the fall in log loss, and whether the answer is corrected or broken."""

    log_loss: np.ndarray
    corrected: np.ndarray
    broken: np.ndarray


def gains(stages: Stages, final: np.ndarray) -> Gains:
    """Return the gains of routing every picture, given the probabilities (N, K) of the decision for all of them."""
    indices = np.arange(len(stages.targets))
    before, after = (np.log(np.maximum(p[indices, stages.targets], 1e-12)) for p in (stages.main, final))
    right_before, right_after = (p.argmax(axis=1) == stages.targets for p in (stages.main, final))
    return Gains(after - before, ~right_before & right_after, right_before & ~right_after)


def _learn_deferral(main: np.ndarray, gained: Gains) -> Deferral | None:
    features = doubt_features(main)  # (N, 4 + K)
    if not gained.corrected.any() or gained.corrected.all():
        return None
    weights = []
    for happened in (gained.corrected, gained.broken):
        if not happened.any():  # an event that never occurred is taken to be very rare
            weights.append([-10.0, *[0.0] * (features.shape[1] - 1)])
            continue
        model = LogisticRegression(C=_PENALTY, max_iter=1000).fit(features[:, 1:], happened)
        weights.append([round(float(value), 4) for value in (*model.intercept_, *model.coef_[0])])
    return Deferral(helps=weights[0], hurts=weights[1], threshold=0.5)


# Every rule that is compared, by its name, from the simplest to the one with most to fit. From the main model's
# probabilities (N, K) and the gains, each is made complete but for its thresholds, which a share of the pictures sets.
# The last one needs activation maps.
ROUTINGS: Mapping[str, Callable[[np.ndarray, Gains], Routing | None]] = {
    "confidence": lambda main, gained: Confidence(threshold=0),
    "margin": lambda main, gained: Margin(threshold=0),
    "entropy": lambda main, gained: Entropy(threshold=0),
    "per_class": lambda main, gained: PerClass(thresholds=[0] * main.shape[1]),
    "deferral": _learn_deferral,
    SEES_TWO: lambda main, gained: AnotherClass(threshold=0, above=0),
}


def fit_routings(name: str, stages: Stages, gained: Gains, shares: Sequence[float]) -> list[Routing | None]:
    """Return the named rule fitted to route about each of the shares of the pictures.

    An entry is None where these pictures cannot fit the rule: the learned rule needs some whose answer is corrected,
    and some whose answer is broken or unchanged; a rule that needs activation maps needs a main model that has them.
    """
    rule = ROUTINGS[name](stages.main, gained)
    if rule is None or (rule.needs_maps and stages.another is None):
        return [None] * len(shares)
    return list(rule.at_shares(stages.main, gained.log_loss, shares, stages.another))
