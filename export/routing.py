"""Routing: choosing the cascade's rules on validation pictures by cross-validation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold

from cascade.errors import CanonistiaError
from cascade.rules import (
    CascadeRules,
    Confidence,
    Decision,
    HighestSubmodel,
    LogLinear,
    Margin,
    Product,
    Routing,
    candidate_classes,
    decide,
    log_odds,
    route,
)
from export.calibration import Calibrators, fit_calibrators

THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
UNSURE_BELOW = 0.5
FOLDS = 5
# Fewer routed pictures than this cannot tell two rules apart.
MIN_ROUTED = 20


@dataclass(frozen=True)
class Answers:
    """Logits of both stages (N, K) for pictures of known class (N,)."""

    main: np.ndarray
    submodels: np.ndarray
    targets: np.ndarray

    def take(self, rows: np.ndarray) -> "Answers":
        """Return the answers of some rows."""
        return Answers(self.main[rows], self.submodels[rows], self.targets[rows])


@dataclass(frozen=True)
class FittedCascade:
    """Calibrators and rules that belong together."""

    calibrators: Calibrators
    rules: CascadeRules


@dataclass(frozen=True)
class OutOfFold:
    """What a cascade says about pictures that its calibration and rules were not fitted on."""

    main: np.ndarray  # (N, K)
    submodels: np.ndarray  # (N, K), every submodel asked
    probabilities: np.ndarray  # (N, K)
    routed: np.ndarray  # (N,) bool
    unsure: np.ndarray  # (N,) bool


_ROUTINGS: tuple[Callable[[float], Routing], ...] = (
    lambda threshold: Confidence(threshold=threshold),
    lambda threshold: Margin(threshold=threshold),
)
_DECISIONS = ("highest_submodel", "product", "log_linear")


def fit_cascade(answers: Answers, candidates: int, max_routed: float, seed: int) -> FittedCascade:
    """Return the calibrators, and the rules with the least cross-validated log loss among those compared.

    Every pair of a routing rule with a threshold and a decision rule is fitted on four fifths of the pictures and
    scored on the fifth, five times. Rules that route more than ``max_routed`` of the pictures are left out.

    Raises
    ------
    CanonistiaError
        A class has fewer than two pictures.
    """
    losses: dict[tuple[int, float, str], list[float]] = {}
    shares: dict[tuple[int, float, str], list[float]] = {}
    for fitted, held_out in _folds(answers, seed):
        calibrators = fit_calibrators(fitted.main, fitted.submodels, fitted.targets)
        seen = _probabilities(calibrators, fitted, candidates)
        unseen = _probabilities(calibrators, held_out, candidates)
        for key, rules in _compared(seen, fitted.targets, candidates):
            final, routed = _run(rules, *unseen)
            losses.setdefault(key, []).append(_log_loss(final, held_out.targets))
            shares.setdefault(key, []).append(float(routed.mean()))
    folds = max((len(values) for values in losses.values()), default=0)
    allowed = {
        key: float(np.mean(values))
        for key, values in losses.items()
        if len(values) == folds and np.mean(shares[key]) <= max_routed
    }
    calibrators = fit_calibrators(answers.main, answers.submodels, answers.targets)
    probabilities = _probabilities(calibrators, answers, candidates)
    if not allowed:
        # Too few doubtful pictures to choose: the simplest rule, with the threshold of the seed project.
        return FittedCascade(calibrators, _rules(Confidence(threshold=0.8), Product(), candidates))
    kind, threshold, decision = min(allowed, key=lambda key: allowed[key])
    routing = _settle(_ROUTINGS[kind](threshold), probabilities[0])
    return FittedCascade(
        calibrators, _rules(routing, _fit_decision(decision, routing, *probabilities, answers.targets), candidates)
    )


def out_of_fold(answers: Answers, candidates: int, max_routed: float, seed: int) -> OutOfFold:
    """Return what cascades fitted on the other folds say about each picture (nested cross-validation)."""
    main, submodels, final = (np.empty(answers.main.shape) for _ in range(3))
    routed, unsure = (np.zeros(len(answers.targets), dtype=bool) for _ in range(2))
    for rows, held_rows in _fold_rows(answers.targets, seed + 1):
        fitted = fit_cascade(answers.take(rows), candidates, max_routed, seed)
        held_out = answers.take(held_rows)
        main[held_rows], asked = _probabilities(fitted.calibrators, held_out, candidates)
        submodels[held_rows] = fitted.calibrators.submodels(held_out.submodels)
        final[held_rows], routed[held_rows] = _run(fitted.rules, main[held_rows], asked)
        unsure[held_rows] = routed[held_rows] & (np.nanmax(asked, axis=1) < fitted.rules.unsure_below)
    return OutOfFold(main, submodels, final, routed, unsure)


def _fold_rows(targets: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    fewest = int(np.bincount(targets).min())
    if fewest < 2:
        raise CanonistiaError(
            "a class has fewer than two pictures in the validation split (or its fold); calibration and routing "
            "need at least four of every class: add validation pictures"
        )
    return StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=seed).split(targets, targets)


def _folds(answers: Answers, seed: int) -> Iterator[tuple[Answers, Answers]]:
    for rows, held_out in _fold_rows(answers.targets, seed):
        yield answers.take(rows), answers.take(held_out)


def _probabilities(calibrators: Calibrators, answers: Answers, candidates: int) -> tuple[np.ndarray, np.ndarray]:
    main = calibrators.main(answers.main)  # (N, K)
    asked = candidate_classes(main, candidates)
    return main, np.where(asked, calibrators.submodels(answers.submodels), np.nan)


def _compared(
    seen: tuple[np.ndarray, np.ndarray], targets: np.ndarray, candidates: int
) -> Iterator[tuple[tuple[int, float, str], CascadeRules]]:
    for kind, make in enumerate(_ROUTINGS):
        for threshold in THRESHOLDS:
            routing = make(threshold)
            if route(routing, seen[0]).sum() < MIN_ROUTED:
                continue
            for name in _DECISIONS:
                decision = _fit_decision(name, routing, *seen, targets)
                yield (kind, threshold, name), _rules(routing, decision, candidates)


def _rules(routing: Routing, decision: Decision, candidates: int) -> CascadeRules:
    return CascadeRules(routing=routing, candidates=candidates, decision=decision, unsure_below=UNSURE_BELOW)


def _run(rules: CascadeRules, main: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    routed = route(rules.routing, main)
    return np.where(routed[:, None], decide(rules.decision, main, asked), main), routed


def _fit_decision(name: str, routing: Routing, main: np.ndarray, asked: np.ndarray, targets: np.ndarray) -> Decision:
    if name == "highest_submodel":
        return HighestSubmodel()
    if name == "product":
        return Product()
    doubtful = route(routing, main)
    p, s, y = main[doubtful], asked[doubtful], targets[doubtful]
    p, odds = np.log(np.maximum(p, 1e-12)), np.nan_to_num(log_odds(s), nan=-50.0)  # unasked: no chance

    terms = np.stack([p, odds])  # (2, M, K)
    true = np.arange(len(y)), y

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.tensordot(weights, terms, axes=1), axis=1)  # (M, K)
        errors = np.exp(logs)
        errors[true] -= 1
        # A weak pull to the plain sum keeps a handful of pictures from giving absurd weights.
        pull = weights - 1
        return float(-logs[true].sum() + pull @ pull), np.einsum("tmk,mk->t", terms, errors) + 2 * pull

    weights = minimize(loss_and_gradient, np.ones(2), jac=True, method="L-BFGS-B", bounds=[(0, 5), (0, 5)]).x
    return LogLinear(main_weight=round(float(weights[0]), 4), submodel_weight=round(float(weights[1]), 4))


def _settle(routing: Routing, main: np.ndarray) -> Routing:
    """Return the routing with its threshold half-way between the two nearest pictures.

    No validation picture then lies so near the threshold that float rounding could send it the other way.
    """
    scores = routing.score(main)
    below, above = scores[scores < routing.threshold], scores[scores >= routing.threshold]
    low = below.max() if below.size else 0.0
    high = above.min() if above.size else 1.0
    return msgspec.structs.replace(routing, threshold=float((low + high) / 2))


def _log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    true = np.take_along_axis(probabilities, targets[:, None], axis=1)
    return float(-np.log(np.maximum(true, 1e-12)).mean())
