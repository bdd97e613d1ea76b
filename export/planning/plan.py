"""The plan of a fit: every training with all its settings, written before the first begins."""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cascade.errors import CanonistiaError
from cascade.files import write_json
from export.plan import ExportPlan
from trainers.commands.train_sub import SubmodelPlan
from trainers.networks.config import NetworkConfig
from trainers.recipe import MAIN_DEFAULTS, SUB_DEFAULTS, Recipe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PLAN = "plan.json"
DATA = "data.csv"
LOG = "log.txt"  # what the trainings and the export say


@dataclass(frozen=True)
class Training:
    """A run of ``train-main``: its folder, network and recipe, and the seconds that it is expected to take."""

    title: str
    out: Path
    network: NetworkConfig
    recipe: Recipe
    report: bool
    seconds: float


@dataclass(frozen=True)
class Submodels:
    """A run of ``train-sub``."""

    out: Path
    plan: SubmodelPlan
    recipe: Recipe
    seconds: float


@dataclass(frozen=True)
class Plan:
    """All that a fit does, in order; paths are absolute. The last training is the main model's.

    ``chosen`` says what was chosen, ``more`` what more time would buy, and ``limits`` what so few pictures cannot
    promise. ``test`` is None where the data set's own test split, if it has one, is scored.
    """

    photos: Path
    test: Path | None
    minutes: float
    chosen: str
    more: str
    limits: tuple[str, ...]
    data: Path
    trainings: tuple[Training, ...]
    submodels: Submodels
    export: ExportPlan
    export_seconds: float
    test_seconds: float

    @property
    def runs(self) -> Path:
        """Return the folder of the plan and of all runs."""
        return self.data.parent

    @property
    def seconds(self) -> float:
        """Return how long everything is expected to take."""
        trained = sum(one.seconds for one in self.trainings) + self.submodels.seconds
        return trained + self.export_seconds + self.test_seconds

    def commands(self) -> list[str]:
        """Return the command lines that do the same, without the options that are as by default."""
        return [shlex.join(("canonistia", *words)) for words in _commands(self)]


def write_plan(plan: Plan, folder: Path) -> None:
    """Write the plan, with its command lines, into a folder."""
    plain: dict[str, Any] = json.loads(msgspec.json.encode(plan, enc_hook=str))
    write_json(folder / PLAN, {"commands": plan.commands(), **plain})


def read_plan(folder: Path) -> Plan:
    """Return the plan in a folder.

    Raises
    ------
    CanonistiaError
        It is damaged, or of another version.
    """
    path = folder / PLAN
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan, dec_hook=lambda kind, text: kind(text))
    except (OSError, msgspec.DecodeError) as error:
        raise CanonistiaError(f"{path} is no plan of this version ({error}); begin anew with --overwrite") from error


def _commands(plan: Plan) -> Iterator[Sequence[str]]:
    data = str(plan.data)
    for training in plan.trainings:
        report = [] if training.report else ["--no-report"]
        options = [*_network(training.network), *_changed(training.recipe, MAIN_DEFAULTS), *report]
        yield "train-main", data, "--out", str(training.out), *options
    subs = plan.submodels
    network = ["--trunk", str(subs.plan.trunk)] if subs.plan.trunk else _network(subs.plan.network_config)
    options = [*network, "--negatives", subs.plan.negatives, "--features", subs.plan.features]
    main = str(plan.export.main_run)
    changed = _changed(subs.recipe, SUB_DEFAULTS)
    yield "train-sub", data, "--main", main, "--out", str(subs.out), *options, *changed
    runs = ("--main", main, "--subs", str(plan.export.subs), "--data", data)
    cross_fit = ["--cross-fit"] if plan.export.cross_fit else []
    yield "export", *runs, *cross_fit, "--out", str(plan.export.out), "--overwrite"


def _network(config: NetworkConfig) -> list[str]:
    return ["--backbone", config.backbone, *_changed(config, NetworkConfig(config.backbone))]


def _changed(value: "DataclassInstance", default: "DataclassInstance") -> list[str]:
    """Return the options for those fields of settings that differ from their defaults."""
    words: list[str] = []
    for field in fields(value):
        given, flag = getattr(value, field.name), field.name.replace("_", "-")
        if given == getattr(default, field.name):
            continue
        words += [f"--{flag}" if given else f"--no-{flag}"] if isinstance(given, bool) else [f"--{flag}", str(given)]
    return words
