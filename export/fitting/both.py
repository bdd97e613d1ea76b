"""Fitting the mark both for a stated rate of false marks, on composed pictures and pictures of one class."""

import math
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from cascade.rules.both import ANOTHER_CLASS, QUANTITIES, Both, both_asked, quantities
from cascade.rules.cascade import CascadeRules, known_answers, run_cascade
from cascade.rules.probabilities import top_two
from export.fitting.calibration import Calibrators
from export.fitting.stage_logits import StageLogits, fold_indices
from trainers.data.composed import WAYS, Pair, draw_pairs

_MOST_PAIRS = 1000  # more would take time and hardly change the rule
_FEWEST = 20  # pictures of either kind; fewer determine no weights


@dataclass(frozen=True)
class _Candidates:
    """Pictures with quantities (N, F), named classes (N, 2), and which ``can`` be marked (N,); others have zeros."""

    values: np.ndarray
    named: np.ndarray
    can: np.ndarray


def fit_both(
    answers: StageLogits, calibrators: Calibrators, rules: CascadeRules, rate: float, seed: int
) -> Both | None:
    """Return the rule that marks at most this rate of the pictures, each of which shows one class.

    Weights are those of a logistic regression that tells composed pictures whose two classes are both named from
    pictures of one class, as far as they can be marked. The threshold is set on scores of pictures that the weights
    were not fitted on (cross-fitting), and is never below even odds. None where there are no composed pictures, or too
    few of either kind are routed.
    """
    if answers.composed is None:
        return None
    with_evidence = answers.another is not None and answers.composed.logits.another is not None
    names = (*QUANTITIES, ANOTHER_CLASS) if with_evidence else tuple(QUANTITIES)
    single = _candidates(answers, calibrators, rules, names)
    composed = _candidates(answers.composed.logits, calibrators, rules, names)
    parents = answers.composed.parents
    right = (np.sort(composed.named, axis=1) == np.sort(answers.targets[parents], axis=1)).all(axis=1)
    positive = composed.can & right  # (M,)
    if min(positive.sum(), single.can.sum()) < _FEWEST:
        return None
    scores = np.full(len(answers.targets), -np.inf)
    for indices, held_out in fold_indices(answers.targets, seed):
        used = positive & np.isin(parents, indices).all(axis=1)
        if not used.any() or not single.can[indices].any():
            return None
        model = _told_apart(composed.values[used], single.values[indices][single.can[indices]])
        judged = held_out[single.can[held_out]]
        if judged.size:
            scores[judged] = model.decision_function(single.values[judged])
    model = _told_apart(composed.values[positive], single.values[single.can])
    weights = [round(float(weight), 4) for weight in model.coef_[0]]
    threshold = max(threshold_at(scores, rate), 0.0) - float(model.intercept_[0])
    return Both(dict(zip(names, weights, strict=True)), round(threshold, 4), rate)


def pairs_to_fit(targets: np.ndarray, seed: int) -> list[Pair]:
    """Return the pairs of pictures of different classes (N,) that the rule is fitted on."""
    return draw_pairs(targets, min(_MOST_PAIRS, len(targets)), tuple(WAYS), seed)


def pairs_within(folds: np.ndarray, targets: np.ndarray, seed: int) -> list[Pair]:
    """Return pairs as :func:`pairs_to_fit` does, whose pictures are of one fold (N,): one model has seen neither."""
    pairs: list[Pair] = []
    for number in range(int(folds.max()) + 1):
        indices = np.flatnonzero(folds == number)
        count = math.ceil(min(_MOST_PAIRS, len(targets)) * len(indices) / len(targets))
        pairs += [
            Pair(int(indices[pair.first]), int(indices[pair.second]), pair.way)
            for pair in draw_pairs(targets[indices], count, tuple(WAYS), seed + number)
        ]
    return pairs


def threshold_at(scores: np.ndarray, rate: float) -> float:
    """Return a threshold that at most this rate of the scores (N,) reach, halfway between two of them."""
    highest = np.sort(scores)[::-1]
    over = highest[int(rate * len(scores))]  # the first that must stay below
    above = highest[highest > over]
    if not np.isfinite(over):
        return float(over)
    return float((above[-1] + over) / 2) if above.size else float(over) + 0.01


def _candidates(
    logits: StageLogits, calibrators: Calibrators, rules: CascadeRules, names: tuple[str, ...]
) -> _Candidates:
    stages = logits.calibrated(calibrators)
    output = run_cascade(rules, stages.main, stages.distance, known_answers(stages.submodels), stages.another)
    named = top_two(output.probabilities)
    can = both_asked(output.submodels, named) & ~output.unsure
    evidence = None if logits.another is None else logits.another[can]
    found = quantities(output.main[can], output.submodels[can], named[can], evidence)
    values = np.zeros((len(can), len(names)))
    values[can] = np.column_stack([found[name] for name in names])
    return _Candidates(values, named, can)


def _told_apart(composed: np.ndarray, single: np.ndarray) -> LogisticRegression:
    """Return a model whose decision is 0 where both kinds are as likely, were there as many of either."""
    kinds = np.repeat([1, 0], [len(composed), len(single)])
    return LogisticRegression(class_weight="balanced", max_iter=1000).fit(np.concatenate([composed, single]), kinds)
