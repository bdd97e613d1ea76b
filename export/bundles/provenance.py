"""The commands that made a bundle, reconstructed from its runs."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.plan import ExportPlan
from trainers.recipe import DEFAULT_COMPOSITION, MAIN_DEFAULTS, SUB_DEFAULTS, Recipe
from trainers.runs.folder import is_started, read_config
from trainers.runs.submodels import TRUNK_CONFIG, class_run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def command_lines(plan: ExportPlan) -> list[str]:
    """Return the command lines that made a bundle, one per step, with the bare names of folders.

    Submodels may have been trained one by one: classes with the same settings share a line.
    """
    main = read_config(plan.main_run)
    data = main["data"]
    lines = list(run_lines(main, plan.main_run.name))
    trunk = plan.subs / TRUNK_CONFIG
    runs = {label: read_config(class_run(plan.subs, label)) for label in main["classes"]}
    if trunk.exists():
        name = next(iter(runs.values()))["trunk"]
        lines += run_lines(json.loads(trunk.read_bytes()), name)
    groups: dict[str, list[str]] = {}
    for label, config in runs.items():
        arguments = ["--main", config["main"], "--out", plan.subs.name, "--negatives", config["negatives"]]
        if config["trunk"]:
            arguments += ["--trunk", config["trunk"]]
        if config.get("features", "trunk") != "trunk":
            arguments += ["--features", config["features"]]
        if (compose := config.get("compose", "none")) != DEFAULT_COMPOSITION:
            arguments += ["--compose", compose]
        groups.setdefault(_line("train-sub", data, config, SUB_DEFAULTS, arguments), []).append(label)
    for line, labels in groups.items():
        classes = "" if len(groups) == 1 else " " + shlex.join(part for label in labels for part in ("--class", label))
        lines.append(line + classes)
    arguments = ["canonistia", "export", "--main", plan.main_run.name, "--subs", plan.subs.name, "--data", data]
    named = ("checkpoint", "cross_fit", "budget", "false_alarm_rate", "both_rate", "accept", "seed")
    arguments += changed_options(plan, named)
    return [*dict.fromkeys(lines), shlex.join([*arguments, "--out", plan.out.name])]


def run_lines(config: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the commands that made a run of a whole network, those of the runs that it started from first."""
    averaged = config.get("averaged", [])
    for before in map(Path, averaged or [*filter(None, [config.get("start")]), *config.get("teachers", [])]):
        if is_started(before):  # it may have been moved since
            yield from run_lines(read_config(before), before.name)
    if averaged:
        shares = [word for share in config["shares"] for word in ("--share", f"{share:g}")]
        names = [Path(run).name for run in averaged]
        yield shlex.join(["canonistia", "average", *names, *shares, "--data", config["data"], "--out", name])
        return
    start = ["--start", Path(config["start"]).name] if config.get("start") else []
    teachers = [word for run in config.get("teachers", []) for word in ("--teacher", Path(run).name)]
    yield _line("train-main", config["data"], config, MAIN_DEFAULTS, [*start, *teachers, "--out", name])


def changed_options(plan: "DataclassInstance", names: Iterable[str]) -> Iterator[str]:
    """Yield the command-line arguments of those options of a plan that differ from their defaults, in this order."""
    defaults = {field.name: field.default for field in fields(plan)}
    for name in names:
        value = getattr(plan, name)
        if value != defaults[name]:
            yield from (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))


def _line(command: str, data: str, config: Mapping[str, Any], defaults: Recipe, extra: Iterable[str]) -> str:
    arguments = ["canonistia", command, data]
    if not config.get("trunk"):
        arguments += ["--backbone", config["backbone"]]
    if config.get("kind") == "own":
        arguments.append("--own-networks")
    return shlex.join([*arguments, *_changed(config, defaults), *extra])


def _changed(config: Mapping[str, Any], defaults: Recipe) -> Iterator[str]:
    for field in fields(Recipe):
        value = config.get(field.name, getattr(defaults, field.name))
        if value != getattr(defaults, field.name) and field.name not in ("tracker", "device", "workers"):
            yield from (f"--{field.name.replace('_', '-')}", str(value))
    if config.get("flip"):
        yield "--flip"
    if not config.get("trunk"):
        spec = config["preprocess"]
        yield from ("--size", str(spec["size"]), "--resize", spec["resize"], "--colour", spec["colour"])
