"""What a fit says: its plan before it begins, and what it made at its end."""

import shlex
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec

from cascade.bundle.manifest import Manifest
from cascade.evaluation.metrics import is_wide
from export.planning.choice import RESERVE
from export.planning.plan import LOG, PLAN, Plan

_STAGES = (("main network", "main"), ("cascade", "cascade"))


def plan_lines(plan: Plan, elapsed: float) -> list[str]:
    """Return what is trained, when it ends, and what more time would buy; ``elapsed`` seconds have passed."""
    end = timedelta(seconds=round(elapsed + plan.seconds))
    return [
        f"chosen: {plan.chosen}",
        f"it ends after about {end} of {timedelta(minutes=plan.minutes)}; {RESERVE - 1:.0%} of its time is kept in "
        "reserve",
        f"more time would buy: {plan.more}",
        *plan.limits,
    ]


def result_lines(plan: Plan, manifest: Manifest, test: Mapping[str, Any] | None) -> list[str]:
    """Return the table of the main model against the cascade, where everything is, and how to try and serve it."""
    figures: Mapping[str, Any] = test or msgspec.to_builtins(manifest.measured)
    what = "test" if test else manifest.measured.split
    how = "" if test else ", out of fold"
    model = shlex.quote(str(plan.export.out))
    return [
        f"{'':<14}{'top 1':<26}either of two",
        *(f"{name:<14}{_share(figures[key], 'top1'):<26}{_share(figures[key], 'top2')}" for name, key in _STAGES),
        f"on {figures['pictures']:,} {what} pictures{how}, with {_width(figures)}; {figures['routed']:.1%} are routed "
        "to the submodels",
        f"its commands are in {plan.runs / PLAN}, what they said in {plan.runs / LOG}, its report in "
        f"{plan.export.main_run / 'report.html'}",
        "",
        f"canonistia classify PHOTO --model {model}",
        f"canonistia serve --model {model}",
    ]


def _width(figures: Mapping[str, Any]) -> str:
    if any(is_wide(figures[key]["top1_interval"]) for _, key in _STAGES):
        return "95% intervals, which are wide: four times as many pictures halve them"
    return "95% intervals"


def _share(figures: Mapping[str, Any], name: str) -> str:
    low, high = figures[f"{name}_interval"]
    return f"{figures[name]:.2%} [{low:.2%}, {high:.2%}]"
