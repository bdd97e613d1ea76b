"""The training of one network: on cached features when its backbone is frozen, else on pixels."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from cascade.errors import CanonistiaError
from cascade.images.preprocess import PreprocessSpec
from trainers.data.augment import augmentation
from trainers.data.dataset import DataSet
from trainers.data.decode_cache import Decoder, decoder
from trainers.data.examples import Examples, SplitExamples
from trainers.data.loader import PictureBatches, PictureDataset, all_grey, pictures_in_order
from trainers.data.sampling import balanced, by_source, shuffled, slice_of
from trainers.distributed.device import keep_freed_memory
from trainers.distributed.process_context import ProcessContext
from trainers.features.cache import SplitFeatures, cached_features
from trainers.loop.fit import Batches, EpochSchedule, Hooks, TensorBatches, TrainingSetup, fit
from trainers.networks.classifier import Classifier
from trainers.networks.config import NetworkConfig
from trainers.networks.feature_extractor import BackboneSpec
from trainers.networks.unfreeze import UnfreezePlan, unfreeze_plan
from trainers.recipe import MAIN_DEFAULTS, Recipe

MIN_SIZE = 32

OnEpoch = Callable[[dict[str, float], nn.Module], None]


def preprocessing(config: NetworkConfig, backbone: BackboneSpec, data: DataSet) -> PreprocessSpec:
    """Return the preprocessing of a network for a data set.

    Raises
    ------
    CanonistiaError
        A picture of the data set cannot be read.
    """
    grey = all_grey([picture.path for picture in (*data.training, *data.validation)])
    return PreprocessSpec(
        size=config.size or backbone.size,
        resize=config.resize,
        interpolation=backbone.interpolation,
        crop=backbone.crop if config.resize == "crop" else 1.0,
        colour=config.colour or ("grey" if grey else "rgb"),
    )


def train_network(
    network: Classifier, examples: SplitExamples, spec: PreprocessSpec, setup: TrainingSetup, on_epoch: OnEpoch
) -> np.ndarray:
    """Train a network and return the validation logits (N, outputs) of the result.

    ``on_epoch`` is called with the row of metrics and the whole network to use. A training that finds a state in its
    folder continues from it.
    """
    keep_freed_memory()
    recipe, process = setup.recipe, setup.process
    plan = unfreeze_plan(recipe.unfreeze, len(network.backbone.stages), recipe.epochs)
    network.to(process.device).to(memory_format=torch.channels_last)
    if plan.head_alone:
        check_used(recipe)
        return _train_on_frozen(network, examples, spec, setup, on_epoch)

    thaw(network, plan)
    training, validation = examples.training, examples.validation
    decode = decoder(recipe.cache, [*training.paths, *validation.paths])
    mine = slice_of(len(validation.paths), process.index, process.count)
    checks = pictures_in_order(
        validation.paths[mine], validation.targets[mine], spec, recipe.batch_size, recipe.workers, decode
    )
    batches = training_batches(training, spec, recipe, process, decode)
    hooks = Hooks(lambda epoch: plan.apply(network, epoch), on_epoch)
    _, logits = fit(network, rate_groups(network, recipe), batches, checks, setup, hooks)
    return logits


def check_recipe(recipe: Recipe, network: Classifier, size: int) -> None:
    """Raise CanonistiaError when a recipe names stages that a network lacks, or an unknown augmentation.

    A training would find this, too, but only after it has made a folder and started a tracker.
    """
    unfreeze_plan(recipe.unfreeze, len(network.backbone.stages), recipe.epochs)
    augmentation(recipe.augment, size)


def check_used(recipe: Recipe) -> None:
    """Raise CanonistiaError when a recipe has a setting that a frozen backbone ignores."""
    for name in ("mix", "early_size", "sampler", "cache"):
        if getattr(recipe, name) != getattr(MAIN_DEFAULTS, name):
            raise CanonistiaError(
                f"--{name.replace('_', '-')} changes the backbone's input, and a frozen one sees each picture once; "
                "add --unfreeze all, or leave it out"
            )


def thaw(network: Classifier, plan: UnfreezePlan) -> None:
    """Mark the parameters of the stages that are trained in any epoch: the optimizer gets these."""
    for stage in range(len(network.backbone.stages)):
        for parameter in network.backbone.stage_parameters(stage):
            parameter.requires_grad_(stage >= plan.fewest_frozen)


def rate_groups(network: Classifier, recipe: Recipe) -> list[dict[str, Any]]:
    """Return parameter groups with their rates: one per stage, falling from the last to the first, and the head's."""
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
    training: Examples, spec: PreprocessSpec, recipe: Recipe, process: ProcessContext, decode: Decoder
) -> Batches:
    """Return this process's share of the batches of each epoch, as the recipe samples, augments and sizes them.

    Raises
    ------
    CanonistiaError
        There are fewer pictures than processes, or a setting contradicts the data or other settings.
    """

    def order(epoch: int) -> list[np.ndarray]:
        if recipe.sampler == "balanced":
            return balanced(training.targets, recipe.batch_size, recipe.seed, epoch)
        if recipe.sampler == "sources":
            return by_source(training.targets, training.sources, recipe.batch_size, recipe.seed, epoch)
        return shuffled(len(training.paths), recipe.batch_size, recipe.seed, epoch)

    def at(size: int) -> Batches:
        pictures = PictureDataset(
            training.paths,
            training.targets,
            msgspec.structs.replace(spec, size=size),
            augmentation(recipe.augment, size),
            training.weights,
            recipe.seed,
            decode,
        )
        return PictureBatches(pictures, order, recipe.workers, process)

    if recipe.sampler == "sources" and len(np.unique(training.sources)) < 2:
        raise CanonistiaError(
            "--sampler sources needs two sources or more, and the data set names fewer; give a manifest with the "
            "column source (check-data --add --fix writes one), or take --sampler balanced"
        )
    if len(training.paths) < process.count:
        raise CanonistiaError(
            f"{process.count} processes share {len(training.paths)} training pictures, expected at least one each; "
            "lower --processes"
        )
    late = at(spec.size)
    early_epochs = recipe.epochs - recipe.final_epochs
    if not recipe.early_size:
        return late
    if early_epochs < 1 or not MIN_SIZE <= recipe.early_size < spec.size:
        raise CanonistiaError(
            f"--early-size {recipe.early_size} is for epochs before the last {recipe.final_epochs} of {recipe.epochs}, "
            f"at an image size from {MIN_SIZE} to below {spec.size}; change --epochs, --final-epochs or --early-size"
        )
    return EpochSchedule([*[at(recipe.early_size)] * early_epochs, *[late] * recipe.final_epochs])


def train_head(
    head: nn.Linear, features: SplitFeatures, examples: SplitExamples, setup: TrainingSetup, on_epoch: OnEpoch
) -> np.ndarray:
    """Train a copy of a linear head on the features of the examples, and return the validation logits (N, outputs).

    ``on_epoch`` is called with the row of metrics and the head to use, an ``nn.Linear``.
    """
    recipe, training, validation = setup.recipe, examples.training, examples.validation
    network = nn.Sequential(nn.Dropout(recipe.dropout), copy.deepcopy(head)).to(setup.process.device)
    batches = TensorBatches(features.training, training.targets, recipe.batch_size, training.weights, recipe.seed)
    checks = TensorBatches(features.validation, validation.targets, len(validation.targets))
    # Lower precision does not make a linear layer faster; features are not mixed.
    plain = replace(setup, recipe=replace(recipe, precision="fp32", mix="none"))
    hooks = Hooks(lambda _: network.train(), lambda row, trained: on_epoch(row, trained.get_submodule("1")))
    with one_thread():
        groups = [{"params": list(network.parameters()), "lr": recipe.lr}]
        _, logits = fit(network, groups, batches, checks, plain, hooks)
    return logits


def _train_on_frozen(
    network: Classifier, examples: SplitExamples, spec: PreprocessSpec, setup: TrainingSetup, on_epoch: OnEpoch
) -> np.ndarray:
    process, workers = setup.process, setup.recipe.workers
    # The features that a frozen backbone makes of a picture are the same in every epoch: they are computed once.
    with process.main_first():
        training, validation = (
            cached_features(network, part.paths, spec, process.device, workers)
            for part in (examples.training, examples.validation)
        )

    def end(row: dict[str, float], trained: nn.Module) -> None:
        network.head.load_state_dict(trained.state_dict())
        on_epoch(row, network)

    # Every process trains the whole head: a step takes less time than an exchange between processes.
    alone = replace(setup, process=process.alone)
    return train_head(network.head, SplitFeatures(training, validation), examples, alone, end)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread in the block, as the steps of a linear head do."""
    # A step of a linear head ends before a second thread has started; on a busy machine waiting for the thread takes
    # twenty times as long as the step.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
