"""Routing: choosing the cascade's rules on validation pictures by cross-validation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import msgspec
import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.model_selection import StratifiedKFold

from cascade.errors import CanonistiaError
from cascade.rules import (
    CascadeOutput,
    CascadeRules,
    Confidence,
    Decision,
    HighestSubmodel,
    LogLinear,
    Margin,
    Product,
    Routing,
    candidate_classes,
    known_answers,
    log_odds,
    route,
    run_cascade,
)
from export.calibration import Calibrators, fit_calibrators

THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
UNSURE_BELOW = 0.5
FOLDS = 5
# Fewer routed pictures than this cannot tell two rules apart.
MIN_ROUTED = 20
# Two folds of two fits need this many pictures of every class.
MIN_PICTURES = 3

_SIMPLE_THRESHOLD = 0.8  # that of the project this one grew from
_GAP = 2e-4  # well over what rounding does to a probability
_NEARBY = 0.02
_Key = tuple[int, float, str]  # routing rule, threshold, decision rule
_ROUTE_NOTHING: _Key = (0, 0.0, "product")


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

    cascade: CascadeOutput
    submodels: np.ndarray  # (N, K) calibrated answers, every submodel asked about every picture


_ROUTINGS: tuple[Callable[[float], Routing], ...] = (
    lambda threshold: Confidence(threshold=threshold),
    lambda threshold: Margin(threshold=threshold),
)
_DECISIONS = ("highest_submodel", "product", "log_linear")


def fit_cascade(answers: Answers, candidates: int, max_routed: float, seed: int) -> FittedCascade:
    """Return the calibrators, and the rules with the least cross-validated log loss among those compared.

    Every pair of a routing rule with a threshold and a decision rule is fitted on four fifths of the pictures and
    scored on the fifth, five times. Rules that route more than ``max_routed`` of the pictures are left out.

    Not to route at all is among them, so submodels that do not help are not asked. Where nothing else can be
    compared, for want of doubtful pictures or because all rules route too many, the simplest rules are taken:
    confidence below 0.8, or what keeps to the limit, and the product.
    """
    losses: dict[_Key, list[float]] = {}
    shares: dict[_Key, list[float]] = {}
    for fitted, held_out in _folds(answers, seed):
        calibrators = fit_calibrators(fitted.main, fitted.submodels, fitted.targets)
        seen, unseen = _probabilities(calibrators, fitted), _probabilities(calibrators, held_out)
        for key, rules in _compared(*seen, fitted.targets, candidates):
            output = run_cascade(rules, unseen[0], known_answers(unseen[1]))
            losses.setdefault(key, []).append(_log_loss(output.probabilities, held_out.targets))
            shares.setdefault(key, []).append(float(output.routed.mean()))
    folds = len(losses[_ROUTE_NOTHING])
    allowed = {
        key: float(np.mean(values))
        for key, values in losses.items()
        if len(values) == folds and np.mean(shares[key]) <= max_routed
    }
    calibrators = fit_calibrators(answers.main, answers.submodels, answers.targets)
    main, submodels = _probabilities(calibrators, answers)
    if len(allowed) == 1:
        threshold = min(_SIMPLE_THRESHOLD, float(np.quantile(main.max(axis=1), max_routed)))
        routing = _settle(Confidence(threshold=threshold), main)
        return FittedCascade(calibrators, _rules(routing, Product(), candidates))
    kind, threshold, name = min(allowed, key=lambda key: allowed[key])
    routing = _settle(_ROUTINGS[kind](threshold), main)
    decision = _fit_decision(name, routing, main, submodels, answers.targets, candidates)
    return FittedCascade(calibrators, _rules(routing, decision, candidates))


def out_of_fold(answers: Answers, candidates: int, max_routed: float, seed: int) -> OutOfFold:
    """Return what cascades fitted on the other folds say about each picture (nested cross-validation)."""
    every = np.empty(answers.main.shape)
    parts: dict[str, np.ndarray] = {}
    for rows, held_rows in _fold_rows(answers.targets, seed + 1):
        fitted = fit_cascade(answers.take(rows), candidates, max_routed, seed)
        main, every[held_rows] = _probabilities(fitted.calibrators, answers.take(held_rows))
        output = run_cascade(fitted.rules, main, known_answers(every[held_rows]))
        for field in fields(CascadeOutput):
            values = getattr(output, field.name)
            parts.setdefault(field.name, np.empty((len(every), *values.shape[1:]), values.dtype))[held_rows] = values
    return OutOfFold(CascadeOutput(**parts), every)


def check_class_counts(targets: np.ndarray, classes: Sequence[str]) -> None:
    """Raise CanonistiaError unless there are enough pictures of every class to fit and to measure."""
    counts = np.bincount(targets, minlength=len(classes))
    fewest = int(counts.argmin())
    if counts[fewest] < MIN_PICTURES:
        raise CanonistiaError(
            f"the validation split has {counts[fewest]} pictures of {classes[fewest]}; calibration and routing need "
            f"at least {MIN_PICTURES} of every class: add validation pictures"
        )


def _fold_rows(targets: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    folds = min(FOLDS, int(np.bincount(targets).min()))
    return StratifiedKFold(folds, shuffle=True, random_state=seed).split(targets, targets)


def _folds(answers: Answers, seed: int) -> Iterator[tuple[Answers, Answers]]:
    for rows, held_out in _fold_rows(answers.targets, seed):
        yield answers.take(rows), answers.take(held_out)


def _probabilities(calibrators: Calibrators, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    return calibrators.main(answers.main), calibrators.submodels(answers.submodels)


def _compared(
    main: np.ndarray, submodels: np.ndarray, targets: np.ndarray, candidates: int
) -> Iterator[tuple[_Key, CascadeRules]]:
    yield _ROUTE_NOTHING, _rules(Confidence(threshold=0.0), Product(), candidates)
    for kind, make in enumerate(_ROUTINGS):
        for threshold in THRESHOLDS:
            routing = make(threshold)
            if route(routing, main).sum() < MIN_ROUTED:
                continue
            for name in _DECISIONS:
                decision = _fit_decision(name, routing, main, submodels, targets, candidates)
                yield (kind, threshold, name), _rules(routing, decision, candidates)


def _rules(routing: Routing, decision: Decision, candidates: int) -> CascadeRules:
    return CascadeRules(routing=routing, candidates=candidates, decision=decision, unsure_below=UNSURE_BELOW)


def _fit_decision(
    name: str, routing: Routing, main: np.ndarray, submodels: np.ndarray, targets: np.ndarray, candidates: int
) -> Decision:
    if name == "highest_submodel":
        return HighestSubmodel()
    if name == "product":
        return Product()
    # Only pictures whose true class is asked about say something of the weights: decide() moves nothing else.
    asked = candidate_classes(main, candidates)  # (N, K)
    rows = route(routing, main) & asked[np.arange(len(targets)), targets]
    if not rows.any():
        return LogLinear(main_weight=1.0, submodel_weight=1.0)
    true = np.arange(int(rows.sum())), targets[rows]
    terms = np.stack([np.log(np.maximum(main[rows], 1e-12)), log_odds(submodels[rows])])  # (2, M, K)
    left_out = np.where(asked[rows], 0.0, -np.inf)  # (M, K)

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.tensordot(weights, terms, axes=1) + left_out, axis=1)  # (M, K)
        errors = np.exp(logs)
        errors[true] -= 1
        # A weak pull to the plain sum keeps a handful of pictures from giving absurd weights.
        pull = weights - 1
        return float(-logs[true].sum() + pull @ pull), np.einsum("tmk,mk->t", terms, errors) + 2 * pull

    weights = minimize(loss_and_gradient, np.ones(2), jac=True, method="L-BFGS-B", bounds=[(0, 5), (0, 5)]).x
    return LogLinear(main_weight=round(float(weights[0]), 4), submodel_weight=round(float(weights[1]), 4))


def _settle(routing: Routing, main: np.ndarray) -> Routing:
    """Return the routing with its threshold moved to the middle of the nearest wide gap between two pictures.

    No validation picture then lies so near the threshold that float rounding could send it the other way. Where
    pictures lie too dense for a gap of ``_GAP``, the widest one nearby is taken.
    """
    scores = np.unique(np.concatenate([[0.0], routing.score(main), [1.01]]))
    middles, widths = (scores[1:] + scores[:-1]) / 2, np.diff(scores)  # (M,)
    distance = np.abs(middles - routing.threshold)
    if routing.threshold == 0:
        return routing
    wide = np.where(widths >= _GAP, distance, np.inf)
    nearby = distance <= max(_NEARBY, float(distance.min()))
    chosen = int(wide.argmin()) if wide.min() <= _NEARBY else int(np.where(nearby, widths, -1).argmax())
    return msgspec.structs.replace(routing, threshold=float(middles[chosen]))


def _log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    true = np.take_along_axis(probabilities, targets[:, None], axis=1)
    return float(-np.log(np.maximum(true, 1e-12)).mean())
