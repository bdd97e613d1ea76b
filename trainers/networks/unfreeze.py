"""Unfreezing: which stages of a backbone are trained, and from which epoch."""

import re
from dataclasses import dataclass

from cascade.errors import CanonistiaError
from trainers.networks.classifier import Classifier


@dataclass(frozen=True)
class UnfreezePlan:
    """How many of the first stages stay frozen, from an epoch on: pairs (first epoch, frozen stages), in order."""

    steps: tuple[tuple[int, int], ...]
    stages: int

    @property
    def head_alone(self) -> bool:
        """Return whether no stage of the backbone is ever trained."""
        return self.fewest_frozen == self.stages

    @property
    def fewest_frozen(self) -> int:
        """Return how many of the first stages stay frozen to the end."""
        return min(frozen for _, frozen in self.steps)

    def frozen(self, epoch: int) -> int:
        """Return how many of the first stages are frozen in an epoch."""
        return [frozen for first, frozen in self.steps if first <= epoch][-1]

    def apply(self, network: Classifier, epoch: int) -> None:
        """Set training mode, with the frozen stages' weights and batch-norm statistics left as they are."""
        network.train()
        frozen = self.frozen(epoch)
        for stage in range(self.stages):
            for parameter in network.backbone.stage_parameters(stage):
                parameter.requires_grad_(stage >= frozen)
            for module in network.backbone.stage_modules(stage) if stage < frozen else ():
                module.training = False


def unfreeze_plan(text: str, stages: int, epochs: int | None = None) -> UnfreezePlan:
    """Return the plan that a text names: ``head``, ``last-2``, ``all``, or a schedule ``head,last-2@3,all@6``.

    In a schedule every part but the first names the epoch from which it holds.

    Raises
    ------
    CanonistiaError
        A part is none of ``head``, ``all``, ``last-1`` ... ``last-<stages>``, or the epochs do not rise, or exceed
        ``epochs``.
    """
    steps: list[tuple[int, int]] = []
    for part in text.split(","):
        name, mark, first = part.strip().partition("@")
        epoch = int(first) if re.fullmatch("[0-9]{1,6}", first) else 0 if mark else 1
        if epoch <= (steps[-1][0] if steps else 0) or (not steps and epoch != 1) or (epochs and epoch > epochs):
            raise CanonistiaError(
                f"unfreeze is '{text}'; in a schedule the epochs rise, from 1 for the first part"
                f"{f' to {epochs} at most' if epochs else ''}: head,last-2@3,all@6"
            )
        steps.append((epoch, _frozen_stages(name, stages)))
    return UnfreezePlan(tuple(steps), stages)


def _frozen_stages(name: str, stages: int) -> int:
    if name == "head":
        return stages
    if name == "all":
        return 0
    number = name.removeprefix("last-")
    if number == name or not number.isdigit() or not 1 <= int(number) <= stages:
        raise CanonistiaError(f"unfreeze is '{name}'; expected head, all, or last-1 to last-{stages}")
    return stages - int(number)
