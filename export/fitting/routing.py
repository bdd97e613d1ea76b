"""Fitting routing rules: which pictures go to the submodels, at a given share of them all."""

from dataclasses import dataclass

import msgspec
import numpy as np
from sklearn.linear_model import LogisticRegression

from cascade.rules.routing import Confidence, Deferral, Entropy, Margin, PerClass, Routing, doubt_features
from export.fitting.stage_logits import Stages

# From the simplest to the one with most to fit.
ROUTINGS = ("confidence", "margin", "entropy", "per_class", "deferral")
EVERYTHING = 1.01

_SCALED: dict[str, type[Confidence | Margin | Entropy]] = {
    "confidence": Confidence,
    "margin": Margin,
    "entropy": Entropy,
}
_GAP = 2e-4  # well over what rounding does to a probability
_PENALTY = 0.3  # inverse strength of the pull of the learned rule's weights to zero


@dataclass(frozen=True)
class Gains:
    """What routing would do for each picture (N,): the fall in log loss, and whether it mends or spoils the answer."""

    log_loss: np.ndarray
    mended: np.ndarray
    spoilt: np.ndarray


def gains(stages: Stages, final: np.ndarray) -> Gains:
    """Return the gains of routing every picture, given the probabilities (N, K) of the decision for all of them."""
    rows = np.arange(len(stages.targets))
    before, after = (np.log(np.maximum(p[rows, stages.targets], 1e-12)) for p in (stages.main, final))
    right_before, right_after = (p.argmax(axis=1) == stages.targets for p in (stages.main, final))
    return Gains(after - before, ~right_before & right_after, right_before & ~right_after)


def fit_routings(name: str, stages: Stages, gained: Gains, shares: np.ndarray) -> list[Routing | None]:
    """Return the named rule fitted to route about each of the shares of the pictures.

    None stands where the pictures at hand cannot fit it: the learned rule needs some whose answer is mended, and
    some whose answer is spoilt or left as it was.
    """
    if name == "per_class":
        return [_fit_per_class(stages.main, gained.log_loss, share) for share in shares]
    if name == "deferral":
        learned = _fit_deferral(stages.main, gained)
        if learned is None:
            return [None] * len(shares)
        score = learned.score(stages.main)
        return [msgspec.structs.replace(learned, threshold=_cut(score, share)) for share in shares]
    rule = _SCALED[name]
    score = rule.score(stages.main)
    return [rule(threshold=_cut(score, share)) for share in shares]


def settle(routing: Routing, main: np.ndarray) -> Routing:
    """Return the routing with each threshold moved into a gap between two pictures, so that no more are routed.

    No validation picture then lies so near the threshold that float rounding could send it the other way.
    """
    score = routing.score(main)
    if not isinstance(routing, PerClass):
        return msgspec.structs.replace(routing, threshold=in_a_gap(score, routing.threshold))
    predicted = main.argmax(axis=1)
    thresholds = [in_a_gap(score[predicted == k], limit) for k, limit in enumerate(routing.thresholds)]
    return PerClass(thresholds=thresholds)


def in_a_gap(scores: np.ndarray, threshold: float) -> float:
    """Return a threshold in the middle of a gap between two scores, below which no more of them lie than before.

    It is the nearest gap that is wide enough among the next one in a hundred scores, or else the widest of these.
    """
    ordered = np.sort(scores)
    count = int(np.searchsorted(ordered, threshold))
    if count in (0, len(ordered)):
        return threshold
    ranks = np.arange(count, max(0, count - max(2, len(ordered) // 100)), -1)
    widths = ordered[ranks] - ordered[ranks - 1]
    rank = ranks[int((widths >= _GAP).argmax()) if (widths >= _GAP).any() else int(widths.argmax())]
    return float((ordered[rank - 1] + ordered[rank]) / 2)


def _cut(score: np.ndarray, share: float) -> float:
    """Return the threshold below which about this share of the scores (N,) lies."""
    count = round(share * len(score))
    if count == len(score):
        return EVERYTHING
    lowest = np.concatenate([[0.0], np.sort(score)])
    return float(np.clip((lowest[count] + lowest[count + 1]) / 2, 0, EVERYTHING))


def _fit_per_class(main: np.ndarray, gain: np.ndarray, share: float) -> PerClass:
    """Return the thresholds, one a predicted class, with the greatest gain (N,) at about the share routed.

    A price a routed picture, the same for every class, is what a share comes down to (FrugalML's Lagrangian): each
    class routes its least confident pictures as long as what they gain together exceeds the price.
    """
    confidence, predicted = main.max(axis=1), main.argmax(axis=1)
    by_class = []
    for label in range(main.shape[1]):
        rows = np.flatnonzero(predicted == label)
        rows = rows[np.argsort(confidence[rows], kind="stable")]
        by_class.append((confidence[rows], np.concatenate([[0.0], np.cumsum(gain[rows])])))

    def counts(price: float) -> list[int]:
        return [int((gained - price * np.arange(len(gained))).argmax()) for _, gained in by_class]

    low, high = -1.0 - np.abs(gain).max(), 1.0 + np.abs(gain).max()
    wanted = share * len(main)
    for _ in range(40):
        price = (low + high) / 2
        low, high = (price, high) if sum(counts(price)) > wanted else (low, price)
    return PerClass(
        thresholds=[_class_cut(score, count) for (score, _), count in zip(by_class, counts(high), strict=True)]
    )


def _class_cut(score: np.ndarray, count: int) -> float:
    """Return the threshold below which ``count`` of the ascending scores lie, and no unseen one far above them."""
    if count == 0:
        return 0.0
    return float(min(score[-1] + _GAP, EVERYTHING) if count == len(score) else (score[count - 1] + score[count]) / 2)


def _fit_deferral(main: np.ndarray, gained: Gains) -> Deferral | None:
    features = doubt_features(main)  # (N, 4 + K)
    if not gained.mended.any() or gained.mended.all():
        return None
    weights = []
    for happened in (gained.mended, gained.spoilt):
        if not happened.any():  # what was never seen is taken for very rare
            weights.append([-10.0, *[0.0] * (features.shape[1] - 1)])
            continue
        model = LogisticRegression(C=_PENALTY, max_iter=1000).fit(features[:, 1:], happened)
        weights.append([round(float(value), 4) for value in (*model.intercept_, *model.coef_[0])])
    return Deferral(helps=weights[0], hurts=weights[1], threshold=0.5)
