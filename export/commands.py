"""The commands that made a bundle, read back from its runs."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from trainers.recipe import MAIN_DEFAULTS, SUB_DEFAULTS, Recipe
from trainers.submodels import TRUNK_CONFIG, class_run, read_submodel_set


def commands(main_run: Path, subs: Path, name: str) -> list[str]:
    """Return the command lines, one a step, with folders by their names alone."""
    main = _config(main_run / "config.json")
    data = main["data"]
    trunk = _config(subs / TRUNK_CONFIG) if (subs / TRUNK_CONFIG).exists() else None
    first = _config(class_run(subs, read_submodel_set(subs).classes[0]) / "config.json")
    lines = [_line("train-main", data, main, MAIN_DEFAULTS, out=main_run.name)]
    if trunk:
        lines.append(_line("train-main", data, trunk, MAIN_DEFAULTS, out=first["trunk"]))
    extra = {"main": main_run.name, "out": subs.name, "negatives": first["negatives"]}
    if trunk:
        extra["trunk"] = first["trunk"]
    lines.append(_line("train-sub", data, first, SUB_DEFAULTS, **extra))
    lines.append(
        shlex.join(
            ["canonistia", "export", "--main", main_run.name, "--subs", subs.name, "--data", data, "--out", name]
        )
    )
    return lines


def _config(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def _line(command: str, data: str, config: Mapping[str, Any], defaults: Recipe, **extra: str) -> str:
    words = ["canonistia", command, data, "--backbone", config["backbone"], *_changed(config, defaults)]
    if config.get("kind") == "own":
        words.append("--own-networks")
    for name, value in extra.items():
        words += [f"--{name}", value]
    return shlex.join(words)


def _changed(config: Mapping[str, Any], defaults: Recipe) -> Iterator[str]:
    for field in fields(Recipe):
        value = config[field.name]
        if value != getattr(defaults, field.name) and field.name not in ("tracker", "device", "workers"):
            yield from (f"--{field.name.replace('_', '-')}", str(value))
    yield from ("--size", str(config["preprocess"]["size"]), "--resize", config["preprocess"]["resize"])
