"""One network trained on labelled pictures: through cached features when its backbone is frozen, else on pixels."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from cascade.errors import CanonistiaError
from cascade.preprocess import Colour, PreprocessSpec, ResizeRule
from trainers.augment import augmentation
from trainers.backbones import backbone_spec
from trainers.dataset import DataSet
from trainers.device import keep_freed_memory
from trainers.features import cached_features
from trainers.fit import Batches, EpochSchedule, Task, TensorBatches, fit, predict
from trainers.network import Classifier, Freezing
from trainers.pictures import PictureDataset, all_grey, loader
from trainers.recipe import MAIN_DEFAULTS, Recipe
from trainers.record import RunRecord
from trainers.runs import Sidecar, code_version

MIN_SIDE = 32


@dataclass(frozen=True)
class Eyes:
    """How a network sees: ``None`` takes the backbone's own side, and grey when all pictures are."""

    backbone: str
    weights: Path | None = None
    size: int | None = None
    resize: ResizeRule = "squash"
    colour: Colour | None = None
    flip: bool = False


@dataclass(frozen=True)
class Examples:
    """Pictures with their targets (N,) and, for training, a weight each (N,)."""

    paths: list[Path]
    targets: np.ndarray
    weights: np.ndarray


def preprocessing(eyes: Eyes, data: DataSet) -> PreprocessSpec:
    """Return the preprocessing of a network for a data set.

    Raises
    ------
    CanonistiaError
        A picture of the data set cannot be read, or the backbone is unknown.
    """
    backbone = backbone_spec(eyes.backbone)
    grey = all_grey([picture.path for picture in (*data.training, *data.validation)])
    return PreprocessSpec(
        size=eyes.size or backbone.size,
        resize=eyes.resize,
        interpolation=backbone.interpolation,
        colour=eyes.colour or ("grey" if grey else "rgb"),
    )


def sidecar_for(
    network: Classifier, data: DataSet, spec: PreprocessSpec, recipe: Recipe, positive: str | None = None
) -> Sidecar:
    """Return the sidecar of a run before its first epoch; ``positive`` is the class of a binary submodel."""
    return Sidecar(
        backbone=network.backbone_name,
        classes=list(data.classes),
        positive=positive,
        preprocess=spec,
        dropout=recipe.dropout,
        flip=network.flip,
        data_fingerprint=data.fingerprint,
        seed=recipe.seed,
        epoch=0,
        code_version=code_version(),
    )


def train_network(
    network: Classifier,
    training: Examples,
    validation: Examples,
    spec: PreprocessSpec,
    recipe: Recipe,
    task: Task,
    record: RunRecord,
    device: str,
) -> np.ndarray:
    """Train a network, record every epoch, and return the validation logits (N, outputs) of the result."""
    keep_freed_memory()
    freezing = Freezing(recipe.unfreeze, len(network.backbone.stages))
    network.to(device).to(memory_format=torch.channels_last)
    if freezing.whole:
        check_used(recipe)
        # A frozen backbone gives each picture the same features every epoch: they are computed once.
        seen, unseen = (cached_features(network, part.paths, spec, device) for part in (training, validation))

        def on_epoch(row: dict[str, float], trained: nn.Module) -> None:
            network.head.load_state_dict(trained.state_dict())
            record.epoch(row, network)

        return train_head(network.head, seen, training, unseen, validation, recipe, task, device, on_epoch)

    freezing.apply(network)
    unseen_pictures = PictureDataset(validation.paths, validation.targets, spec)
    batches = _training_batches(training, spec, recipe)
    checks = loader(unseen_pictures, recipe.batch_size, shuffle=False, seed=0, workers=recipe.workers)
    result = fit(
        network,
        rate_groups(network, recipe),
        batches,
        checks,
        recipe,
        task,
        device,
        lambda: freezing.train_mode(network),
        record.epoch,
    )
    return predict(result, checks, device)[0]


def check_used(recipe: Recipe) -> None:
    """Raise CanonistiaError when a setting is asked for that a frozen backbone would ignore."""
    for name in ("mix", "early_size"):
        if getattr(recipe, name) != getattr(MAIN_DEFAULTS, name):
            raise CanonistiaError(
                f"--{name.replace('_', '-')} changes what the backbone sees, and a frozen one sees each picture once; "
                "add --unfreeze all, or leave it out"
            )


def rate_groups(network: Classifier, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the parameters with their rates: the head's, and one a stage that falls towards the picture."""
    stages = list(reversed(network.backbone.stages))
    body = [
        {
            "params": [parameter for parameter in stage.parameters() if parameter.requires_grad],
            "lr": recipe.backbone_lr * recipe.layer_decay**depth,
        }
        for depth, stage in enumerate(stages)
    ]
    head = {"params": list(network.head.parameters()), "lr": recipe.lr}
    return [*(group for group in body if group["params"]), head]


def _training_batches(training: Examples, spec: PreprocessSpec, recipe: Recipe) -> Batches:
    def at(size: int, seed: int) -> Batches:
        seen = PictureDataset(
            training.paths,
            training.targets,
            msgspec.structs.replace(spec, size=size),
            augmentation(recipe.augment, size),
            training.weights,
        )
        return loader(seen, recipe.batch_size, shuffle=True, seed=seed, workers=recipe.workers)

    late = at(spec.size, recipe.seed)
    early_epochs = recipe.epochs - recipe.final_epochs
    if not recipe.early_size:
        return late
    if early_epochs < 1 or not MIN_SIDE <= recipe.early_size < spec.size:
        raise CanonistiaError(
            f"--early-size {recipe.early_size} is for epochs before the last {recipe.final_epochs} of {recipe.epochs}, "
            f"at a side from {MIN_SIDE} to below {spec.size}; change --epochs, --final-epochs or --early-size"
        )
    return EpochSchedule([*[at(recipe.early_size, recipe.seed + 1)] * early_epochs, *[late] * recipe.final_epochs])


def train_head(
    head: nn.Linear,
    seen: torch.Tensor,
    training: Examples,
    unseen: torch.Tensor,
    validation: Examples,
    recipe: Recipe,
    task: Task,
    device: str,
    on_epoch: Callable[[dict[str, float], nn.Module], None],
) -> np.ndarray:
    """Train a copy of a linear head on features (N, D), and return the validation logits (N, outputs).

    ``on_epoch`` is given the row of metrics and the head to use, an ``nn.Linear``.
    """
    network = nn.Sequential(nn.Dropout(recipe.dropout), copy.deepcopy(head)).to(device)
    batches = TensorBatches(seen, training.targets, recipe.batch_size, training.weights, recipe.seed)
    checks = TensorBatches(unseen, validation.targets, len(validation.targets))
    with _one_thread():
        result = fit(
            network,
            [{"params": list(network.parameters()), "lr": recipe.lr}],
            batches,
            checks,
            replace(
                recipe, precision="fp32", mix="none"
            ),  # a linear layer gains nothing from bf16; features do not mix
            task,
            device,
            network.train,
            lambda row, trained: on_epoch(row, trained.get_submodule("1")),
        )
        return predict(result, checks, device)[0]


@contextmanager
def _one_thread() -> Iterator[None]:
    # A step of a linear head is over before a second thread has started; on a busy machine waiting for it costs
    # twenty times the step.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
