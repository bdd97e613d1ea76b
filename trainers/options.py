"""The options that training commands share, made from the recipe's fields."""

import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click

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
    "epochs": "How often the training pictures are gone through.",
    "batch_size": "Pictures a step, over all processes; 0: as many as fit into the GPU's memory.",
    "lr": "Highest learning rate of the head.",
    "backbone_lr": "Highest learning rate of the unfrozen stages.",
    "optimizer": "adamw, or sgd with Nesterov momentum 0.9.",
    "weight_decay": "Weight decay.",
    "warmup": "Share of the steps in which the rates rise from zero, before a cosine brings them back.",
    "label_smoothing": "Probability spread over the other classes in the target.",
    "dropout": "Share of the features dropped before the head.",
    "ema": "Decay a step of the averaged weights, which are the ones kept; 0 turns averaging off.",
    "accumulate": "Parts in which a step's batch is computed, one after another, for GPUs with little memory.",
    "clip": "Largest norm of the gradients; 0 does not clip.",
    "patience": "End after so many epochs without a better validation score; 0: never before the last.",
    "sampler": "shuffled: every picture once an epoch; balanced: every class equally often in each batch.",
    "unfreeze": "What is trained: head, last-N stages of the backbone, all, or a schedule: head,last-2@3,all@6.",
    "augment": "Random changes to training pictures: none, light or strong. A frozen backbone sees none.",
    "layer_decay": "Factor on the learning rate from each backbone stage to the one before it; 1 treats them alike.",
    "mix": "Blend pairs of pictures (mixup), paste one into the other (cutmix), or both at random; targets mix alike.",
    "early_size": "Side in pixels of all but the last --final-epochs; faster, and often better. 0: --size throughout.",
    "final_epochs": "Epochs at the full side that end a training with --early-size.",
    "loss": "cross_entropy, or top2, which forgives a true class in second place.",
    "precision": "fp32, bf16, fp16 (with scaled gradients), or auto: bf16 where the hardware has it.",
    "device": "cpu, cuda, or auto: a GPU where PyTorch sees one.",
    "workers": "Processes that decode pictures; 0 decodes in the main one.",
    "cache": "Keep decoded pictures in memory, or on disk, for the epochs that follow.",
    "seed": "Seed of the split, the head, the order and the augmentation.",
    "tracker": "Weights & Biases: online, offline, none, or auto: online with an account, else a file in the run.",
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
        return click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            callback=_read_config,
            is_eager=True,
            expose_value=False,
            help="TOML file with options of this command by name (batch_size = 32); the command line wins.",
        )(command)

    return decorate


def features_option(command: F) -> F:
    """Add ``--features`` to a command."""
    return click.option(
        "--features",
        type=click.Choice(["trunk", "both"]),
        default="trunk",
        show_default=True,
        help="What heads on a shared trunk read. both: the main model's features, too, which its own pass has made "
        "already. That is for a frozen main model: the features of a fine-tuned one were fitted to the very pictures "
        "that the heads learn from, so they look better there than they are.",
    )(command)


def take_recipe(defaults: Recipe, options: dict[str, Any]) -> Recipe:
    """Return the recipe of a command's parsed options, and take those out of the mapping."""
    names = [field.name for field in fields(Recipe) if field.name in options]
    return replace(defaults, **{name: options.pop(name) for name in names})


def _read_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is not TOML: {error}") from error
    options = [parameter for parameter in context.command.params if isinstance(parameter, click.Option)]
    names = {flag.removeprefix("--").replace("-", "_"): str(option.name) for option in options for flag in option.opts}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise click.BadParameter(f"{path} has unknown options {', '.join(unknown)}; see --help")
    context.default_map = {**(context.default_map or {}), **{names[key]: value for key, value in given.items()}}
