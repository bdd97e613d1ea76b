"""The commands that made a bundle, read back from its runs."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from export.plan import ExportPlan
from trainers.recipe import MAIN_DEFAULTS, SUB_DEFAULTS, Recipe
from trainers.runs.folder import read_config
from trainers.runs.submodels import TRUNK_CONFIG, class_run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def commands(plan: ExportPlan) -> list[str]:
    """Return the command lines, one a step, with folders by their names alone.

    Submodels may have been trained one by one: classes with the same settings share a line.
    """
    main = read_config(plan.main_run)
    data = main["data"]
    lines = [_line("train-main", data, main, MAIN_DEFAULTS, ("--out", plan.main_run.name))]
    trunk = plan.subs / TRUNK_CONFIG
    runs = {label: read_config(class_run(plan.subs, label)) for label in main["classes"]}
    if trunk.exists():
        name = next(iter(runs.values()))["trunk"]
        lines.append(_line("train-main", data, json.loads(trunk.read_bytes()), MAIN_DEFAULTS, ("--out", name)))
    groups: dict[str, list[str]] = {}
    for label, config in runs.items():
        words = ["--main", config["main"], "--out", plan.subs.name, "--negatives", config["negatives"]]
        if config["trunk"]:
            words += ["--trunk", config["trunk"]]
        if config.get("features", "trunk") != "trunk":
            words += ["--features", config["features"]]
        groups.setdefault(_line("train-sub", data, config, SUB_DEFAULTS, words), []).append(label)
    for line, labels in groups.items():
        classes = "" if len(groups) == 1 else " " + shlex.join(word for label in labels for word in ("--class", label))
        lines.append(line + classes)
    words = ["canonistia", "export", "--main", plan.main_run.name, "--subs", plan.subs.name, "--data", data]
    words += changed_options(plan, ("checkpoint", "budget", "false_alarm_rate", "seed"))
    return [*lines, shlex.join([*words, "--out", plan.out.name])]


def changed_options(plan: "DataclassInstance", names: Iterable[str]) -> Iterator[str]:
    """Yield the words for those of a plan's options that are not at their defaults, in the order of the names."""
    defaults = {field.name: field.default for field in fields(plan)}
    for name in names:
        if getattr(plan, name) != defaults[name]:
            yield from (f"--{name.replace('_', '-')}", str(getattr(plan, name)))


def _line(command: str, data: str, config: Mapping[str, Any], defaults: Recipe, extra: Iterable[str]) -> str:
    words = ["canonistia", command, data]
    if not config.get("trunk"):
        words += ["--backbone", config["backbone"]]
    if config.get("kind") == "own":
        words.append("--own-networks")
    return shlex.join([*words, *_changed(config, defaults), *extra])


def _changed(config: Mapping[str, Any], defaults: Recipe) -> Iterator[str]:
    for field in fields(Recipe):
        value = config.get(field.name, getattr(defaults, field.name))
        if value != getattr(defaults, field.name) and field.name not in ("tracker", "device", "workers"):
            yield from (f"--{field.name.replace('_', '-')}", str(value))
    if config.get("flip"):
        yield "--flip"
    if not config.get("trunk"):
        seen = config["preprocess"]
        yield from ("--size", str(seen["size"]), "--resize", seen["resize"], "--colour", seen["colour"])
