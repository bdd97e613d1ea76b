"""Choosing the cascade's rules by cross-validation on validation pictures."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from cascade.errors import CanonistiaError
from cascade.rules.accept import Accept
from cascade.rules.cascade import CascadeOutput, CascadeRules, candidate_classes, known_answers, run_cascade
from cascade.rules.decision import Decision, Product, decide
from cascade.rules.distance_calibration import soften
from cascade.rules.routing import Confidence, Routing
from cascade.rules.unsure import NO_MARK
from export.fitting.both import fit_both
from export.fitting.calibration import Calibrators, fit_calibrators
from export.fitting.decisions import DECISIONS, FITTED_COMBINATION, fit_decision
from export.fitting.distance_calibration import fit_distance_calibration
from export.fitting.routing import ROUTINGS, SEES_TWO, fit_routings, gains
from export.fitting.stage_logits import StageLogits, Stages, fold_indices
from export.fitting.unsure import fit_unsure, with_deserved
from export.plan import BOTH_RATE

SHARES = (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
# With fewer routed pictures two rules cannot be compared.
MIN_ROUTED = 20

# A rule fitted to route a share of some pictures routes slightly more or less of others.
_SAMPLING = 1.03
_SIMPLE_THRESHOLD = 0.8  # of the seed project


@dataclass(frozen=True)
class Terms:
    """The requirements on a cascade.

    ``second_stage_cost`` is per routed picture, and ``budget`` is the highest mean over all pictures, both in main
    passes: 1 is the main model alone. ``candidates`` is the number of classes asked about per picture.
    """

    candidates: int
    second_stage_cost: float
    budget: float
    false_alarm_rate: float
    seed: int
    both_rate: float = BOTH_RATE

    def __post_init__(self) -> None:
        """Raise CanonistiaError unless the budget is more than the main model costs."""
        if not self.budget > 1:
            raise CanonistiaError(
                f"a budget of {self.budget:g} main passes per picture leaves nothing for the second stage: every "
                f"picture passes the main model, which costs 1; give more than 1 (routing every picture costs "
                f"{1 + self.second_stage_cost:.2f})"
            )

    @property
    def most_routed(self) -> float:
        """Return the largest share of the pictures that can be routed within the budget."""
        return min(1.0, (self.budget - 1) / self.second_stage_cost)

    @property
    def shares(self) -> tuple[float, ...]:
        """Return the shares at which rules are compared, including the one that uses the whole budget."""
        return tuple(sorted({*SHARES, self.most_routed}))

    def cost(self, routed: np.ndarray) -> float:
        """Return the mean cost in main passes when these pictures are routed, (N,) bool."""
        return 1 + float(routed.mean()) * self.second_stage_cost


@dataclass(frozen=True)
class Compared:
    """The out-of-fold output of a pair of rules, fitted to route a share of the pictures, about N pictures."""

    routing: str
    decision: str
    share: float
    probabilities: np.ndarray  # (N, K)
    routed: np.ndarray  # (N,) bool

    def log_loss(self, targets: np.ndarray) -> np.ndarray:
        """Return the loss of each picture, (N,)."""
        return -np.log(np.maximum(self.probabilities[np.arange(len(targets)), targets], 1e-12))


@dataclass(frozen=True)
class FittedCascade:
    """Calibrators and the rules fitted with them; ``compared`` is the number of rules they were chosen from."""

    calibrators: Calibrators
    rules: CascadeRules
    compared: int

    @property
    def routes_nothing(self) -> bool:
        """Return whether no picture goes to the submodels."""
        return self.rules.routing.routes_nothing

    def promising(self, accept: Accept | None) -> "FittedCascade":
        """Return the cascade with a threshold of accepted answers."""
        return replace(self, rules=msgspec.structs.replace(self.rules, accept=accept))


@dataclass(frozen=True)
class OutOfFold:
    """The output of a cascade about pictures that its calibration and rules were not fitted on."""

    cascade: CascadeOutput
    submodels: np.ndarray  # (N, K) calibrated answers of every submodel about every picture


# These fits are small: threads of the linear algebra would wait for each other longer than they compute.
@threadpool_limits.wrap(limits=1)
def compare(answers: StageLogits, terms: Terms, shares: tuple[float, ...]) -> list[Compared]:
    """Return the out-of-fold output of every pair of routing and decision rules, at each share that could be fitted.

    The first entry is the main model alone, at share 0. A pair is left out if a fold routes fewer than ``MIN_ROUTED``
    pictures to fit it on.
    """
    count = len(answers.targets)
    probabilities: dict[tuple[str, str, float], np.ndarray] = {}
    routed: dict[tuple[str, str, float], np.ndarray] = {}
    filled: dict[tuple[str, str, float], int] = {}
    alone = np.empty(answers.main.shape)
    for indices, held_out in fold_indices(answers.targets, terms.seed):
        fitted = answers.take(indices)
        calibrators = fit_calibrators(fitted.main, fitted.distance, fitted.submodels, fitted.targets)
        stages, held = fitted.calibrated(calibrators), answers.take(held_out).calibrated(calibrators)
        alone[held_out] = held.main
        for routing, decision, share, rules in _fitted_pairs(stages, terms.candidates, shares):
            output = run_cascade(rules, held.main, held.distance, known_answers(held.submodels), held.another)
            key = routing, decision, share
            probabilities.setdefault(key, np.empty(answers.main.shape))[held_out] = output.probabilities
            routed.setdefault(key, np.zeros(count, dtype=bool))[held_out] = output.routed
            filled[key] = filled.get(key, 0) + len(held_out)
    complete = [key for key, number in filled.items() if number == count]
    return [
        Compared("confidence", "product", 0.0, alone, np.zeros(count, dtype=bool)),
        *(Compared(*key, probabilities[key], routed[key]) for key in complete),
    ]


def choose(compared: list[Compared], targets: np.ndarray, most_routed: float) -> Compared:
    """Return the simplest rules that are as good as those with the least log loss, within the share.

    At the share of the best rules, other rules replace them if their loss is higher by at most one standard error of
    the paired difference (Breiman's rule). The fitted combination of both stages, of which the other decisions are
    special cases, is preferred to the best rules' own decision; then the routing rule that finds pictures of two
    environments, which cost it nothing here, and then the simplest.
    """
    allowed = [
        entry for entry in compared if entry.share <= most_routed and entry.routed.mean() <= _SAMPLING * most_routed
    ]
    best = min(allowed, key=lambda entry: entry.log_loss(targets).mean())
    at_share = {(entry.decision, entry.routing): entry for entry in allowed if entry.share == best.share}
    for key in product((FITTED_COMBINATION, best.decision), dict.fromkeys((SEES_TWO, *ROUTINGS))):
        if key in at_share:
            difference = at_share[key].log_loss(targets) - best.log_loss(targets)
            if difference.mean() <= difference.std(ddof=1) / np.sqrt(len(difference)):
                return at_share[key]
    return best


def fit_cascade(answers: StageLogits, terms: Terms, compared: list[Compared] | None = None) -> FittedCascade:
    """Return the calibrators, and the rules of :func:`choose` fitted on all pictures.

    ``compared`` is the result of :func:`compare` for the same answers, if it is known already.

    Routing nothing is one of the choices, so that submodels that do not help are not asked. If nothing else can be
    compared, because too few pictures are doubtful or all rules route too many, the result is the simplest rules:
    confidence below 0.8, or a lower threshold that the budget needs, and the product.
    """
    most = terms.most_routed
    compared = compared or compare(answers, terms, tuple(share for share in terms.shares if share <= most))
    calibrators = fit_calibrators(answers.main, answers.distance, answers.submodels, answers.targets)
    stages = answers.calibrated(calibrators)
    if not any(0 < entry.share <= most for entry in compared):
        threshold = min(_SIMPLE_THRESHOLD, float(np.quantile(stages.main.max(axis=1), most)))
        routing: Routing = Confidence(threshold=threshold).settled(stages.main)
        return FittedCascade(calibrators, _finished(routing, Product(), answers, calibrators, terms), 0)
    chosen = choose(compared, answers.targets, most)
    if chosen.share == 0:
        rules = _finished(Confidence(threshold=0.0), Product(), answers, calibrators, terms)
        return FittedCascade(calibrators, rules, len(compared))
    routing, decision = fit_rules(chosen.routing, chosen.decision, chosen.share, stages, terms.candidates)
    return FittedCascade(calibrators, _finished(routing, decision, answers, calibrators, terms), len(compared))


def fit_rules(routing: str, decision: str, share: float, stages: Stages, candidates: int) -> tuple[Routing, Decision]:
    """Return a named pair of rules fitted on all the pictures, its threshold in a gap between two of them.

    Raises
    ------
    CanonistiaError
        The learned routing rule cannot be fitted on these pictures.
    """
    (fitted,) = fit_routings(routing, stages, gains(stages, _final(decision, stages, candidates)), [share])
    if fitted is None:
        raise CanonistiaError(
            f"the routing rule {routing} cannot be fitted: the submodels correct no answer; use another routing rule"
        )
    settled = fitted.settled(stages.main, stages.another)
    return settled, fit_decision(decision, stages, settled.route(stages.main, stages.another), candidates)


def out_of_fold(answers: StageLogits, terms: Terms) -> OutOfFold:
    """Return the output about each picture of a cascade fitted on the other folds (nested cross-validation)."""
    every = np.empty(answers.main.shape)
    parts: dict[str, np.ndarray] = {}
    for indices, held_out in fold_indices(answers.targets, terms.seed + 1):
        fitted = fit_cascade(answers.take(indices), terms)
        held = answers.take(held_out).calibrated(fitted.calibrators)
        every[held_out] = held.submodels
        output = run_cascade(fitted.rules, held.main, held.distance, known_answers(held.submodels), held.another)
        for field in fields(CascadeOutput):
            values = getattr(output, field.name)
            parts.setdefault(field.name, np.empty((len(every), *values.shape[1:]), values.dtype))[held_out] = values
    return OutOfFold(CascadeOutput(**parts), every)


def _fitted_pairs(
    stages: Stages, candidates: int, shares: tuple[float, ...]
) -> Iterator[tuple[str, str, float, CascadeRules]]:
    if len(stages.targets) < MIN_ROUTED:
        return
    for decision in DECISIONS:
        gained = gains(stages, _final(decision, stages, candidates))
        for routing in ROUTINGS:
            for share, rule in zip(shares, fit_routings(routing, stages, gained, shares), strict=True):
                if rule is None:
                    continue
                settled = rule.settled(stages.main, stages.another)
                routed = settled.route(stages.main, stages.another)
                if routed.sum() < MIN_ROUTED:
                    continue
                fitted = fit_decision(decision, stages, routed, candidates)
                yield routing, decision, share, CascadeRules(settled, candidates, fitted, NO_MARK)


def everything_routed(decision: Decision, stages: Stages, candidates: int) -> np.ndarray:
    """Return the probabilities (N, K) if every picture is routed."""
    asked = np.where(candidate_classes(stages.main, candidates), stages.submodels, np.nan)
    return decide(decision, stages.main, asked)


def _final(decision: str, stages: Stages, candidates: int) -> np.ndarray:
    everything = np.ones(len(stages.targets), dtype=bool)
    return everything_routed(fit_decision(decision, stages, everything, candidates), stages, candidates)


def _finished(
    routing: Routing, decision: Decision, answers: StageLogits, calibrators: Calibrators, terms: Terms
) -> CascadeRules:
    """Return the rules with calibration by distance and both marks.

    The mark unsure is fitted on the pictures and their shifted copies, the mark both on them and composed pictures.
    """
    stages = answers.with_copies().calibrated(calibrators)
    rules = CascadeRules(routing, terms.candidates, decision, NO_MARK)
    output = run_cascade(rules, stages.main, stages.distance, known_answers(stages.submodels), stages.another)
    by_distance = fit_distance_calibration(
        output.probabilities, stages.distance, stages.targets, float(np.median(stages.distance[: len(answers.targets)]))
    )
    mark = fit_unsure(stages.distance, output.submodels, terms.false_alarm_rate)
    softened = soften(output.probabilities, by_distance.temperature(stages.distance))
    marked = mark.score(stages.distance, output.submodels) > 1
    finished = msgspec.structs.replace(
        rules,
        unsure=with_deserved(mark, softened[marked], stages.targets[marked]),
        distance_calibration=by_distance,
    )
    return msgspec.structs.replace(finished, both=fit_both(answers, calibrators, finished, terms.both_rate, terms.seed))
