"""How long a training step takes on this machine, and in which precision it is faster: measured, not assumed."""

import copy
import time
from dataclasses import replace

import torch
from torch import nn

from trainers.data.loader import Batch
from trainers.distributed.device import resolve_precision
from trainers.distributed.process_context import ProcessContext
from trainers.loop.step import Stepper
from trainers.loop.training import one_thread, rate_groups, thaw
from trainers.networks.classifier import Classifier
from trainers.networks.unfreeze import unfreeze_plan
from trainers.recipe import Recipe

_STEPS = 2  # timed, after one that is not: the first step allocates
_HEAD_STEPS = 30  # timed, after as many that are not
_ON_CPU = 8  # pictures; a CPU needs no more to show which precision is faster


def step_seconds(network: Classifier, size: int, recipe: Recipe, device: str, count: int) -> float:
    """Return the seconds of the faster of two training steps of ``count`` random pictures (count, size, size, 3).

    The stages are those that the recipe trains in its last epoch. The network and the random state are left alone.
    """
    with torch.random.fork_rng():
        trial = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last)
        plan = unfreeze_plan(recipe.unfreeze, len(trial.backbone.stages), recipe.epochs)
        thaw(trial, plan)
        plan.apply(trial, recipe.epochs)
        groups = rate_groups(trial, recipe)
        stepper = Stepper(trial, groups, recipe, _any_loss, ProcessContext(device), 1 + _STEPS)
        pixels = torch.randint(256, (count, size, size, 3), dtype=torch.uint8)
        batch = pixels, torch.zeros(count, dtype=torch.int64), torch.ones(count)
        _timed(stepper, batch)
        return min(_timed(stepper, batch) for _ in range(_STEPS))


def head_step_seconds(features: int, outputs: int, recipe: Recipe) -> float:
    """Return the seconds of a training step of a linear head on a batch of cached features, (batch, features)."""
    with torch.random.fork_rng(), one_thread():
        head = nn.Sequential(nn.Dropout(recipe.dropout), nn.Linear(features, outputs))
        groups = [{"params": list(head.parameters()), "lr": recipe.lr}]
        exact = replace(recipe, precision="fp32", mix="none")
        stepper = Stepper(head, groups, exact, _any_loss, ProcessContext("cpu"), 2 * _HEAD_STEPS)
        count = recipe.batch_size
        batch = torch.rand(count, features), torch.zeros(count, dtype=torch.int64), torch.ones(count)
        for _ in range(_HEAD_STEPS):
            stepper.step(batch, epoch=1)
        return sum(_timed(stepper, batch) for _ in range(_HEAD_STEPS)) / _HEAD_STEPS


def chosen_precision(recipe: Recipe, network: Classifier, size: int, device: str) -> str:
    """Return the recipe's precision; for ``auto`` the one in which this machine takes the faster step.

    bf16 is tried where the hardware multiplies it natively. A frozen backbone trains in full precision, so nothing is
    measured for it, and ``auto`` stays.
    """
    plan = unfreeze_plan(recipe.unfreeze, len(network.backbone.stages), recipe.epochs)
    if recipe.precision != "auto" or plan.head_alone:
        return recipe.precision
    if resolve_precision("auto", device) == "fp32":
        return "fp32"
    count = min(recipe.batch_size, _ON_CPU) if device == "cpu" else recipe.batch_size
    return min(
        ("fp32", "bf16"),
        key=lambda name: step_seconds(network, size, replace(recipe, precision=name), device, count),
    )


def _any_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return logits.square().mean(dim=1)


def _timed(stepper: Stepper, batch: Batch) -> float:
    began = time.perf_counter()
    stepper.step(batch, epoch=1)
    return time.perf_counter() - began
