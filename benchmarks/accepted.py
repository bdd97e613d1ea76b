"""Accepted answers: is what ``--accept`` promises true of pictures that the threshold was not fitted on?

    python -m benchmarks.accepted MODEL DATA --accept 0.99 --accept 0.95 --halves 20

DATA holds labelled pictures that the model's networks did not learn from; its validation split is taken where it has
one. They are halved by class, as often as is asked: calibration, rules and threshold are fitted on one half, as `tune`
does, and the accepted answers about the other half are counted. A promise is broken where the exact 95% interval of
their accuracy lies wholly below it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit

from cascade.bundle.lookup import find_bundle
from cascade.evaluation.evaluation import labelled_pictures, targets_of
from cascade.evaluation.metrics import exact_interval
from cascade.inference.engine import Engine
from cascade.rules.cascade import known_answers, run_cascade
from export.bundles.refit import collect_logits, terms_of
from export.fitting.accept import PromiseError, fit_accept
from export.fitting.measure import measure
from export.fitting.selection import Terms, fit_cascade
from export.fitting.stage_logits import StageLogits
from export.plan import BOTH_RATE, BUDGET, FALSE_ALARM_RATE


@dataclass(frozen=True)
class Half:
    """What a promise came to on the other half: answers accepted of all, and how many of these are right."""

    accepted: int
    right: int
    total: int

    @property
    def share(self) -> float:
        """Return the share of answers that are accepted."""
        return self.accepted / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Return the exact 95% interval of the accuracy of the accepted."""
        return exact_interval(self.right, self.accepted)


def accepted_of_halves(logits: StageLogits, terms: Terms, promises: Sequence[float], seed: int) -> list[Half | None]:
    """Return what each promise came to with these halves; None where no threshold could be fitted."""
    splits = StratifiedShuffleSplit(1, test_size=0.5, random_state=seed)
    fitted_on, other = next(splits.split(logits.targets, logits.targets))
    answers = measure(logits.take(fitted_on), terms, "half", 0).answers
    cascade = fit_cascade(logits.take(fitted_on), terms)
    stages = logits.take(other).calibrated(cascade.calibrators)
    found: list[Half | None] = []
    for promise in promises:
        try:
            threshold = fit_accept(answers, logits.targets[fitted_on], promise)
        except PromiseError as error:
            print(f"halves {seed}: {error}", flush=True)
            found.append(None)
            continue
        rules = cascade.promising(threshold).rules
        output = run_cascade(rules, stages.main, stages.distance, known_answers(stages.submodels), stages.another)
        assert output.accepted is not None
        right = output.probabilities.argmax(axis=1) == stages.targets
        half = Half(int(output.accepted.sum()), int(right[output.accepted].sum()), len(other))
        low, high = half.interval
        print(
            f"halves {seed}, {promise:.0%}: {half.share:.1%} accepted, {half.right} of {half.accepted} right "
            f"[{low:.4f}, {high:.4f}]{' BROKEN' if high < promise else ''}",
            flush=True,
        )
        found.append(half)
    return found


def describe(promise: float, halves: Sequence[Half | None]) -> str:
    """Return what all halves show about a promise."""
    made = [half for half in halves if half]
    broken = sum(half.interval[1] < promise for half in made)
    share = np.median([half.share if half else 0.0 for half in halves])
    return (
        f"{promise:.0%}: a threshold for {len(made)} of {len(halves)} halves, promise broken by {broken}; "
        f"{share:.1%} accepted in the median, 0 where there is no threshold"
    )


def main() -> None:
    """Collect the logits once, halve them as often as is asked, and print what each promise came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--accept", type=float, action="append", required=True)
    parser.add_argument("--halves", type=int, default=20)
    given = parser.parse_args()
    engine = Engine.load(find_bundle(given.model))
    pictures = labelled_pictures(given.data, engine.classes)
    targets = targets_of(engine, [picture.label for picture in pictures])
    logits = collect_logits(engine, [picture.path for picture in pictures], targets, 0)
    terms = terms_of(engine.bundle.manifest, BUDGET, FALSE_ALARM_RATE, BOTH_RATE, 0)
    halves = [accepted_of_halves(logits, terms, given.accept, seed) for seed in range(given.halves)]
    for promise, found in zip(given.accept, zip(*halves, strict=True), strict=True):
        print(describe(promise, found))


if __name__ == "__main__":
    main()
