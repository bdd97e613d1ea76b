"""A search for the learning rate: a short training with rising rates; the rate where the loss fell fastest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cascade.errors import CanonistiaError
from cascade.progress import track
from trainers.data.dataset import load_data_set
from trainers.data.decode_cache import decoder
from trainers.data.examples import split_examples
from trainers.distributed.process_context import process_context
from trainers.loop.losses import multiclass_loss
from trainers.loop.step import Stepper
from trainers.loop.training import preprocessing, rate_groups, thaw, training_batches
from trainers.networks.backbones import backbone_spec
from trainers.networks.classifier import build_classifier
from trainers.networks.config import NetworkConfig
from trainers.networks.unfreeze import unfreeze_plan
from trainers.recipe import Recipe

_LOWEST, _HIGHEST = 1e-6, 1.0  # factor on the rates of the recipe, which are scaled to a head's rate of 1
_SMOOTHING = 0.9
_DIVERGED = 4.0  # times the lowest loss


@dataclass(frozen=True)
class Found:
    """The rates that were tried for the head, the smoothed loss at each, and the suggested rate."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float


def find_lr(folder: Path, network_config: NetworkConfig, recipe: Recipe, steps: int) -> Found:
    """Train for some steps while the rates rise by a factor of a million, and return the losses (arXiv 1506.01186).

    All rates keep the recipe's ratio to the head's.

    Raises
    ------
    CanonistiaError
        The data set, backbone or a setting is not usable, or the loss never fell.
    """
    torch.manual_seed(recipe.seed)
    process = process_context(recipe.device)
    backbone = backbone_spec(network_config.backbone)
    data = load_data_set(folder, recipe.seed)
    spec = preprocessing(network_config, backbone, data)
    classes = len(data.classes)
    network = build_classifier(network_config, classes, 0.0, backbone)
    network.to(process.device).to(memory_format=torch.channels_last)
    plan = unfreeze_plan(recipe.unfreeze, len(network.backbone.stages))
    thaw(network, plan)
    plan.apply(network, epoch=max(first for first, _ in plan.steps))
    scaled = replace(recipe, lr=1.0, backbone_lr=recipe.backbone_lr / recipe.lr, ema=0.0, early_size=0)
    groups = rate_groups(network, scaled)
    stepper = Stepper(network, groups, scaled, multiclass_loss(recipe.loss, 0.0, classes), process, steps)
    rising = [_LOWEST * (_HIGHEST / _LOWEST) ** (step / (steps - 1)) for step in range(steps)]
    stepper.schedule = torch.optim.lr_scheduler.LambdaLR(stepper.optimizer, rising.__getitem__)
    training = split_examples(data).training
    batches = training_batches(training, spec, scaled, process, decoder(recipe.cache, training.paths))
    losses: list[float] = []
    mean = 0.0
    endless = (batch for epoch in count(1) for batch in batches.epoch(epoch))
    for step, batch in zip(track(range(steps - 1), "learning rates"), endless, strict=False):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * stepper.step(batch, epoch=1)
        losses.append(mean / (1 - _SMOOTHING ** (step + 1)))
        if losses[-1] > _DIVERGED * min(losses):
            break
    return Found(tuple(rising[: len(losses)]), tuple(losses), suggestion(rising, losses))


def suggestion(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate where the loss falls fastest, before its lowest point.

    Raises
    ------
    CanonistiaError
        The loss never fell.
    """
    lowest = int(np.argmin(losses))
    if lowest < 2:
        raise CanonistiaError(
            "the loss never fell, at any learning rate; look at the data (canonistia check-data), or raise --steps"
        )
    slopes = np.gradient(losses[: lowest + 1], np.log(rates[: lowest + 1]))
    return float(rates[int(np.argmin(slopes))])


def plot_rates(found: Found, out: Path) -> None:
    """Draw the loss against the rate, with the suggestion."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses)
    axes.axvline(found.suggested, linestyle="--", color="grey", label=f"{found.suggested:.1e}")
    lowest = min(found.losses)
    axes.set(xscale="log", xlabel="learning rate of the head", ylabel="loss (smoothed)")
    axes.set_ylim(top=min(max(found.losses), 2 * found.losses[0]) + 0.1, bottom=max(0, lowest - 0.1))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


def rounded(rate: float) -> float:
    """Return a rate with one significant digit, as a person would type it."""
    return round(rate, -math.floor(math.log10(rate)))
