"""The options that training commands share: one per field of the recipe, named as the field."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import click

from cascade.config_file import config_option
from trainers.recipe import (
    AUGMENTATIONS,
    CACHES,
    LOSSES,
    MIXES,
    OPTIMIZERS,
    PRECISIONS,
    SAMPLERS,
    TRACKERS,
    Recipe,
)

F = TypeVar("F", bound=Callable[..., Any])

_HELP = {
    "epochs": "Number of training epochs.",
    "batch_size": "Images per batch, over all processes. 0: as many as fit the GPU's memory.",
    "lr": "Peak learning rate of the head.",
    "backbone_lr": "Peak learning rate of the unfrozen backbone stages.",
    "optimizer": "adamw, or sgd with Nesterov momentum 0.9.",
    "weight_decay": "Weight decay.",
    "warmup": "Fraction of steps for linear warm-up before cosine decay.",
    "label_smoothing": "Label smoothing: the probability that the target gives to the other classes.",
    "dropout": "Dropout before the head: the fraction of features that are dropped.",
    "ema": "EMA decay per step; the averaged weights are kept (0: off).",
    "accumulate": "Gradient accumulation: parts of a batch that are computed one after another.",
    "clip": "Maximum gradient norm (0: no clipping).",
    "patience": "Early-stopping patience in epochs (0: off).",
    "sampler": "shuffled: every picture once per epoch; balanced: every class equally often in each batch; sources: "
    "every class equally often, and within it small sources (the manifest's column source) more often than their size.",
    "unfreeze": "Layers to train: head, last-N backbone stages, all, or a schedule: head,last-2@3,all@6.",
    "augment": "Data augmentation of training pictures: none; light: mirrored and cropped; strong: turned and "
    "recoloured, too; trivial (TrivialAugment) or augmix (AugMix); robust: made small, compressed, wide, tall, dark, "
    "light, grey, for pictures from other cameras and sites; mild: less of that. A frozen backbone gets none.",
    "layer_decay": "Layer-wise learning rate decay: factor per backbone stage, from last to first (1: off).",
    "mix": "mixup: blend pairs of pictures; cutmix: paste one into the other; both: either at random. Targets are "
    "mixed alike.",
    "early_size": "Image size in pixels before the last --final-epochs; faster, and often more accurate (0: --size).",
    "final_epochs": "Last epochs at full image size, with --early-size.",
    "loss": "cross_entropy, or top2, which is low when the true class is among the two likeliest.",
    "teacher_weight": "With --teacher: the share of the loss that follows the teachers; the rest follows the labels.",
    "precision": "fp32, bf16, fp16 (with loss scaling), or auto: bf16 where the hardware supports it "
    "and some timed steps are faster in it.",
    "device": "cpu, cuda, or auto: a GPU where PyTorch sees one.",
    "workers": "Data loader processes that decode pictures (0: the main process).",
    "cache": "Cache of decoded pictures between epochs: none, memory or disk.",
    "seed": "Random seed of split, initial head, order and augmentation.",
    "tracker": "Weights & Biases: online, offline, none, or auto: as $WANDB_MODE says, and without it online with an "
    "account, else a file in the run.",
}
_CHOICES = {
    "augment": AUGMENTATIONS,
    "cache": CACHES,
    "optimizer": OPTIMIZERS,
    "sampler": SAMPLERS,
    "loss": LOSSES,
    "mix": MIXES,
    "precision": PRECISIONS,
    "tracker": TRACKERS,
}
_RANGES: dict[str, click.IntRange | click.FloatRange] = {
    "epochs": click.IntRange(min=1),
    "batch_size": click.IntRange(min=0),
    "accumulate": click.IntRange(min=1),
    "clip": click.FloatRange(min=0),
    "patience": click.IntRange(min=0),
    "lr": click.FloatRange(min=0, min_open=True),
    "backbone_lr": click.FloatRange(min=0, min_open=True),
    "weight_decay": click.FloatRange(min=0),
    "warmup": click.FloatRange(0, 1),
    "label_smoothing": click.FloatRange(0, 1, max_open=True),
    "dropout": click.FloatRange(0, 1, max_open=True),
    "ema": click.FloatRange(0, 1, max_open=True),
    "layer_decay": click.FloatRange(0, 1, min_open=True),
    "teacher_weight": click.FloatRange(0, 1),
    "early_size": click.IntRange(0, 1024),
    "final_epochs": click.IntRange(min=1),
    "workers": click.IntRange(min=0),
}


def recipe_options(defaults: Recipe, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Return a decorator that adds an option for every field of the recipe, and ``--config``."""

    def decorate(command: F) -> F:
        for field in reversed(fields(Recipe)):
            if field.name in without:
                continue
            default = getattr(defaults, field.name)
            kind: Any = _RANGES.get(field.name) or (
                click.Choice(_CHOICES[field.name]) if field.name in _CHOICES else type(default)
            )
            flag = f"--{field.name.replace('_', '-')}"
            command = click.option(flag, type=kind, default=default, show_default=True, help=_HELP[field.name])(command)
        return config_option("batch_size = 32")(command)

    return decorate


def features_option(command: F) -> F:
    """Add ``--features`` to a command."""
    return click.option(
        "--features",
        type=click.Choice(["trunk", "both"]),
        default="trunk",
        show_default=True,
        help="Input of the heads on a shared trunk. trunk: the trunk's features; both: the main model's features, too, "
        "at no extra cost. Use both with a frozen main model only: a fine-tuned one has overfitted its features to the "
        "pictures that the heads are trained on.",
    )(command)


def take_recipe(defaults: Recipe, options: dict[str, Any]) -> Recipe:
    """Return the recipe of a command's parsed options, and remove them from the mapping."""
    names = [field.name for field in fields(Recipe) if field.name in options]
    return replace(defaults, **{name: options.pop(name) for name in names})
