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
from cascade.images.preprocess import Colour, PreprocessSpec, ResizeRule
from trainers.data.augment import augmentation
from trainers.data.dataset import DataSet
from trainers.data.decode_cache import Decoder, decoder
from trainers.data.loader import PictureBatches, PictureDataset, all_grey, pictures_in_order
from trainers.data.sampling import balanced, shuffled, slice_of
from trainers.distributed.device import keep_freed_memory
from trainers.distributed.process_context import ProcessContext
from trainers.features.cache import cached_features
from trainers.loop.fit import Batches, EpochSchedule, Hooks, Task, TensorBatches, fit
from trainers.networks.backbones import backbone_spec
from trainers.networks.classifier import Classifier
from trainers.networks.unfreeze import UnfreezePlan, unfreeze_plan
from trainers.recipe import MAIN_DEFAULTS, Recipe
from trainers.runs.folder import Sidecar, code_version

MIN_SIDE = 32

OnEpoch = Callable[[dict[str, float], nn.Module], None]


@dataclass(frozen=True)
class NetworkConfig:
    """How a network sees: ``None`` takes the backbone's own side, and grey when all pictures are."""

    backbone: str
    weights: Path | None = None
    size: int | None = None
    resize: ResizeRule = "squash"  # crop takes the share that the backbone's weights were measured on
    colour: Colour | None = None
    flip: bool = False
    pretrained: bool = True


@dataclass(frozen=True)
class Examples:
    """Pictures with their targets (N,) and, for training, a weight each (N,)."""

    paths: list[Path]
    targets: np.ndarray
    weights: np.ndarray


def preprocessing(network_config: NetworkConfig, data: DataSet) -> PreprocessSpec:
    """Return the preprocessing of a network for a data set.

    Raises
    ------
    CanonistiaError
        A picture of the data set cannot be read, or the backbone is unknown.
    """
    backbone = backbone_spec(network_config.backbone)
    grey = all_grey([picture.path for picture in (*data.training, *data.validation)])
    return PreprocessSpec(
        size=network_config.size or backbone.size,
        resize=network_config.resize,
        interpolation=backbone.interpolation,
        crop=backbone.crop if network_config.resize == "crop" else 1.0,
        colour=network_config.colour or ("grey" if grey else "rgb"),
    )


def sidecar_for(
    backbone: str, flip: bool, data: DataSet, spec: PreprocessSpec, recipe: Recipe, positive: str | None = None
) -> Sidecar:
    """Return the sidecar of a run before its first epoch; ``positive`` is the class of a binary submodel."""
    return Sidecar(
        backbone=backbone,
        classes=list(data.classes),
        positive=positive,
        preprocess=spec,
        dropout=recipe.dropout,
        flip=flip,
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
    place: ProcessContext,
    folder: Path,
    on_epoch: OnEpoch,
) -> np.ndarray:
    """Train a network and return the validation logits (N, outputs) of the result.

    ``on_epoch`` is given the row of metrics and the whole network to use; ``folder`` keeps the state of the training,
    which goes on from one that it finds there.
    """
    keep_freed_memory()
    plan = unfreeze_plan(recipe.unfreeze, len(network.backbone.stages), recipe.epochs)
    network.to(place.device).to(memory_format=torch.channels_last)
    if plan.head_alone:
        check_used(recipe)
        # A frozen backbone gives each picture the same features every epoch: they are computed once.
        with place.main_first():
            seen, unseen = (
                cached_features(network, part.paths, spec, place.device, recipe.workers)
                for part in (training, validation)
            )

        def end(row: dict[str, float], trained: nn.Module) -> None:
            network.head.load_state_dict(trained.state_dict())
            on_epoch(row, network)

        # The processes do the same: a linear head is trained faster than they could meet.
        return train_head(network.head, seen, training, unseen, validation, recipe, task, place.alone, folder, end)

    thaw(network, plan)
    decode = decoder(recipe.cache, [*training.paths, *validation.paths])
    mine = slice_of(len(validation.paths), place.index, place.count)
    checks = pictures_in_order(
        validation.paths[mine], validation.targets[mine], spec, recipe.batch_size, recipe.workers, decode
    )
    _, logits = fit(
        network,
        rate_groups(network, recipe),
        training_batches(training, spec, recipe, place, decode),
        checks,
        recipe,
        task,
        place,
        Hooks(lambda epoch: plan.apply(network, epoch), on_epoch),
        folder,
    )
    return logits


def check_used(recipe: Recipe) -> None:
    """Raise CanonistiaError when a setting is asked for that a frozen backbone would ignore."""
    for name in ("mix", "early_size", "sampler", "cache"):
        if getattr(recipe, name) != getattr(MAIN_DEFAULTS, name):
            raise CanonistiaError(
                f"--{name.replace('_', '-')} changes what the backbone sees, and a frozen one sees each picture once; "
                "add --unfreeze all, or leave it out"
            )


def thaw(network: Classifier, plan: UnfreezePlan) -> None:
    """Mark the stages that are trained in any epoch, for the optimizer to know them."""
    for stage in range(len(network.backbone.stages)):
        for parameter in network.backbone.stage_parameters(stage):
            parameter.requires_grad_(stage >= plan.fewest_frozen)


def rate_groups(network: Classifier, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the parameters with their rates: one a stage that falls towards the picture, and the head's at the end."""
    backbone = network.backbone
    body = [
        {
            "params": [value for value in backbone.stage_parameters(stage) if value.requires_grad],
            "lr": recipe.backbone_lr * recipe.layer_decay**depth,
        }
        for depth, stage in enumerate(reversed(range(len(backbone.stages))))
    ]
    head = {"params": list(network.head.parameters()), "lr": recipe.lr}
    return [*(group for group in body if group["params"]), head]


def training_batches(
    training: Examples, spec: PreprocessSpec, recipe: Recipe, place: ProcessContext, decode: Decoder
) -> Batches:
    """Return the batches of each epoch, as the recipe samples, augments and sizes them; this process's share.

    Raises
    ------
    CanonistiaError
        There are fewer pictures than processes, or a setting does not fit the data or the other ones.
    """

    def order(epoch: int) -> list[np.ndarray]:
        if recipe.sampler == "balanced":
            return balanced(training.targets, recipe.batch_size, recipe.seed, epoch)
        return shuffled(len(training.paths), recipe.batch_size, recipe.seed, epoch)

    def at(size: int) -> Batches:
        seen = PictureDataset(
            training.paths,
            training.targets,
            msgspec.structs.replace(spec, size=size),
            augmentation(recipe.augment, size),
            training.weights,
            recipe.seed,
            decode,
        )
        return PictureBatches(seen, order, recipe.workers, place)

    if len(training.paths) < place.count:
        raise CanonistiaError(
            f"{place.count} processes share {len(training.paths)} training pictures, expected at least one each; lower "
            "--processes"
        )
    late = at(spec.size)
    early_epochs = recipe.epochs - recipe.final_epochs
    if not recipe.early_size:
        return late
    if early_epochs < 1 or not MIN_SIDE <= recipe.early_size < spec.size:
        raise CanonistiaError(
            f"--early-size {recipe.early_size} is for epochs before the last {recipe.final_epochs} of {recipe.epochs}, "
            f"at a side from {MIN_SIDE} to below {spec.size}; change --epochs, --final-epochs or --early-size"
        )
    return EpochSchedule([*[at(recipe.early_size)] * early_epochs, *[late] * recipe.final_epochs])


def train_head(
    head: nn.Linear,
    seen: torch.Tensor,
    training: Examples,
    unseen: torch.Tensor,
    validation: Examples,
    recipe: Recipe,
    task: Task,
    place: ProcessContext,
    folder: Path,
    on_epoch: OnEpoch,
) -> np.ndarray:
    """Train a copy of a linear head on features (N, D), and return the validation logits (N, outputs).

    ``on_epoch`` is given the row of metrics and the head to use, an ``nn.Linear``.
    """
    network = nn.Sequential(nn.Dropout(recipe.dropout), copy.deepcopy(head)).to(place.device)
    batches = TensorBatches(seen, training.targets, recipe.batch_size, training.weights, recipe.seed)
    checks = TensorBatches(unseen, validation.targets, len(validation.targets))
    # A linear layer gains nothing from fewer bits; features do not mix.
    plain = replace(recipe, precision="fp32", mix="none")
    hooks = Hooks(lambda _: network.train(), lambda row, trained: on_epoch(row, trained.get_submodule("1")))
    with _one_thread():
        groups = [{"params": list(network.parameters()), "lr": recipe.lr}]
        _, logits = fit(network, groups, batches, checks, plain, task, place, hooks, folder)
    return logits


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
