"""The choice of a fit: the most accurate of the ladder that ends in time on this machine."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cascade.errors import CanonistiaError
from export.fitting.stage_logits import FOLDS
from export.planning.ladder import (
    FEWEST_EPOCHS,
    FEWEST_TO_TUNE,
    HEAD,
    MOST_EPOCHS,
    SUBMODELS,
    Rung,
    trainings,
    tuned,
)
from export.planning.plan import Training
from export.planning.speed import Machine, NetworkSpeed
from trainers.features.cache import FEWEST_BY_RUNTIME
from trainers.networks.config import NetworkConfig
from trainers.recipe import Recipe

# The promise is kept if everything takes a quarter longer than expected.
RESERVE = 1.25

# What hardly depends on the pictures, in times of writing the main network's graph: both are work of Python in one
# thread, so that a slow or busy machine takes as many times longer for either.
_START = 0.5  # of a command: the data set's hashes, the network, the folder
_REPORT = 1.0  # report.html with activation maps
_OF_SUBMODEL = 0.1  # its curves and report
_HEAD_EXPORT = 0.02  # a submodel's graph
_RULES = 3.0  # calibration and rules, nested cross-validation
_LINEAR_PASSES = 5 * 150  # of the classifier that gives out-of-fold probabilities: folds, times its steps


@dataclass(frozen=True)
class Counts:
    """Numbers of pictures by split, and of classes; with ``cross_fit`` all but the test pictures serve for both."""

    training: int
    validation: int
    test: int
    classes: int
    cross_fit: bool = False

    @property
    def judged(self) -> int:
        """Return how many pictures calibration, rules and figures come from."""
        return self.training + self.validation if self.cross_fit else self.validation


@dataclass(frozen=True)
class Costs:
    """The expected seconds of a rung's phases on a machine."""

    rung: Rung
    counts: Counts
    machine: Machine

    def training(self, one: Training) -> float:
        """Return the seconds of a run of ``train-main``."""
        counts, recipe, network = self.counts, one.recipe, replace(one.network, start=None)
        report = _REPORT * self._unit + self._out_of_fold(network) if one.report else 0.0
        seconds = self._start + recipe.epochs * self.machine.writing(network) + report
        if recipe.unfreeze == "head":
            return seconds + self._features(network) + recipe.epochs * self._head_epoch(network)
        each = counts.training * self.machine.tuning(network, recipe).seconds
        return seconds + recipe.epochs * (each + counts.validation * self.machine.speed(network).validation)

    def submodels(self) -> float:
        """Return the seconds of ``train-sub``."""
        epochs = SUBMODELS.epochs * (self._head_epoch(self.rung.trunk) + self.machine.writing(None))
        graph = self.machine.speed(self.rung.trunk).export if self.rung.tune_trunk != "head" else 0.0
        features = self._features(self.rung.trunk) + graph
        return self._start + features + self.counts.classes * (epochs + _OF_SUBMODEL * self._unit)

    def export(self) -> float:
        """Return the seconds of ``export``: logits, those of copies, heads in folds, rules, graphs, parity."""
        checked = self.counts.validation
        count = self.counts.judged
        speeds = [self.machine.speed(config) for config in (self.rung.main, self.rung.trunk)]
        # By PyTorch; of shifted copies and of composed pictures; by the bundle.
        passes = sum(checked * speed.pytorch + 2 * count * speed.runtime + checked * speed.runtime for speed in speeds)
        passes += speeds[0].export  # the trunk's graph was kept when the submodels were trained
        again = self.counts.training * speeds[0].runtime if self.rung.tune_main != "head" else 0.0
        copies = 2 * count * self.machine.reading() + (self._folds() if self.counts.cross_fit else 0.0)
        fixed = _START + _RULES + self.counts.classes * _HEAD_EXPORT
        return fixed * self._unit + passes + again + copies

    def test(self) -> float:
        """Return the seconds to score the test pictures; 0 without any."""
        if not self.counts.test:
            return 0.0
        speeds = [self.machine.speed(config).runtime for config in (self.rung.main, self.rung.trunk)]
        return _START * self._unit + self.counts.test * sum(speeds)

    def recipes(self, epochs: int) -> tuple[Recipe | None, Recipe | None]:
        """Return the fine-tuning recipes of the main network and of the trunk; None for one that stays frozen."""
        main, trunk = (
            tuned(stages, epochs, self.machine.tuning(config, tuned(stages, epochs)).precision)
            if stages != "head"
            else None
            for config, stages in ((self.rung.main, self.rung.tune_main), (self.rung.trunk, self.rung.tune_trunk))
        )
        return main, trunk

    def trainings(self, runs: Path, epochs: int) -> tuple[Training, ...]:
        """Return the rung's trainings with their expected seconds."""
        planned = trainings(self.rung, runs, *self.recipes(epochs))
        return tuple(replace(one, seconds=self.training(one)) for one in planned)

    def total(self, epochs: int) -> float:
        """Return the seconds of everything."""
        trained = sum(one.seconds for one in self.trainings(Path(), epochs))
        return trained + self.submodels() + self.export() + self.test()

    @property
    def _unit(self) -> float:
        return max(1.0, self.machine.speed(self.rung.main).export)

    @property
    def _start(self) -> float:
        """Return the seconds before a training begins: every picture is decoded once, to find those that cannot be."""
        return _START * self._unit + self._all * self.machine.reading()

    @property
    def _all(self) -> int:
        return self.counts.training + self.counts.validation

    def _features(self, network: NetworkConfig) -> float:
        """Return the seconds to compute all features; the graph of a frozen network is kept since it was measured."""
        speed = self.machine.speed(network)
        if speed.gpu is not None:
            return self._all * speed.gpu
        return self._computing(speed, self.counts.training) + self._computing(speed, self.counts.validation)

    def _computing(self, speed: NetworkSpeed, count: int) -> float:
        if count < FEWEST_BY_RUNTIME:
            return count * speed.pytorch
        return count * speed.runtime

    def _folds(self) -> float:
        """Return the seconds to train the heads of both stages in folds, the submodels' side by side."""
        both = HEAD.epochs * self._head_epoch(self.rung.main) + SUBMODELS.epochs * self._head_epoch(self.rung.trunk)
        return FOLDS * (both + self._out_of_fold(self.rung.main))

    def _head_epoch(self, network: NetworkConfig) -> float:
        steps = math.ceil(self.counts.training / HEAD.batch_size)
        return steps * self.machine.head_step(self.machine.features(network))

    def _out_of_fold(self, network: NetworkConfig) -> float:
        return _LINEAR_PASSES * self.counts.training * self.machine.linear_pass(self.machine.features(network))


@dataclass(frozen=True)
class Choice:
    """What is trained, for how many epochs where networks are fine-tuned, and in words what more time would buy."""

    costs: Costs
    epochs: int
    more: str


def choose(
    ladder: Sequence[Rung], counts: Counts, machine: Machine, minutes: float, elapsed: Callable[[], float]
) -> Choice:
    """Return the most accurate rung that, with a quarter of its time in reserve, ends within the promise.

    ``elapsed`` returns how many seconds of the promised ``minutes`` have passed; measuring takes some of them.

    Raises
    ------
    CanonistiaError
        Not even the first rung ends in time; the message says the smallest promise that can be kept.
    """
    chosen: Choice | None = None
    more = ""
    for rung in ladder:
        if rung.tunes and (counts.cross_fit or counts.training < FEWEST_TO_TUNE):
            few = f"networks are fine-tuned from {FEWEST_TO_TUNE:,} training pictures on"
            more = f"nothing: {few}{', and where none are cross-fitted' if counts.cross_fit else ''}"
            break
        costs = Costs(rung, counts, machine)
        totals = {epochs: costs.total(epochs) for epochs in range(FEWEST_EPOCHS, MOST_EPOCHS + 1)}
        left = minutes * 60 - elapsed()
        fitting = [epochs for epochs, seconds in totals.items() if seconds * RESERVE <= left]
        if not fitting:
            needed = _promise(totals[FEWEST_EPOCHS], elapsed())
            if chosen is None:
                raise CanonistiaError(
                    f"--minutes {minutes:g} is too little on this machine for {counts.training:,} training pictures; "
                    f"the smallest that works is --minutes {needed}"
                )
            more = f"{rung.name}, from about --minutes {needed} on"
            break
        chosen = Choice(costs, max(fitting), "")
        at_most = not rung.tunes or MOST_EPOCHS in fitting
        more = "nothing" if at_most else f"more epochs, up to --minutes {_promise(totals[MOST_EPOCHS], elapsed())}"
    assert chosen is not None  # the ladder is not empty
    return replace(chosen, more=more)


def _promise(seconds: float, elapsed: float) -> int:
    """Return the whole minutes that suffice for work of so many seconds.

    There is a tenth on top, because another measurement differs.
    """
    return math.ceil(1.1 * (elapsed + seconds * RESERVE) / 60)
