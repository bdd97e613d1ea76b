"""The main model's training, top to bottom."""

from pathlib import Path

import numpy as np
import torch

from trainers.augment import augmentation
from trainers.backbones import backbone_spec
from trainers.dataset import DataSet, load_data_set
from trainers.device import resolve_device
from trainers.fit import Task
from trainers.losses import multiclass_loss
from trainers.network import build_classifier, frozen_stages
from trainers.recipe import Recipe
from trainers.record import RunRecord
from trainers.runs import TrainedRun, check_run_folder, load_run, new_run, write_json
from trainers.scores import multiclass_scores
from trainers.tracking import start_tracker
from trainers.training import Examples, Eyes, preprocessing, sidecar_for, train_network


def train_main(folder: Path, out: Path, eyes: Eyes, recipe: Recipe, overwrite: bool = False) -> TrainedRun:
    """Train the main multiclass network on a data set and return the finished run.

    Raises
    ------
    CanonistiaError
        The data set, the backbone, the weights, a setting or the run folder is not usable.
    """
    torch.manual_seed(recipe.seed)
    device = resolve_device(recipe.device)
    backbone_spec(eyes.backbone)
    check_run_folder(out, overwrite)
    data = load_data_set(folder, recipe.seed)
    loss = multiclass_loss(recipe.loss, recipe.label_smoothing, len(data.classes))
    task = Task(loss, multiclass_scores, best_by="top1")
    spec = preprocessing(eyes, data)
    network = build_classifier(
        eyes.backbone, len(data.classes), recipe.dropout, pretrained=True, weights=eyes.weights, flip=eyes.flip
    )
    frozen_stages(recipe.unfreeze, len(network.backbone.stages))
    augmentation(recipe.augment, spec.size)

    training, validation = (examples(data, split) for split in ("training", "validation"))
    sidecar = sidecar_for(network, data, spec, recipe)
    config = {**recipe.as_dict(), **sidecar.as_config(), "data": folder.resolve().name}
    config["weights"] = str(eyes.weights) if eyes.weights else None
    with new_run(out, overwrite):
        write_json(out / "config.json", config)
        tracker = start_tracker(recipe.tracker, out, out.name, group=out.name, job="train-main", config=config)
        with RunRecord(out, sidecar, tracker, task.best_by) as record:
            logits = train_network(network, training, validation, spec, recipe, task, record, device)
            record.confusion(validation.targets, logits.argmax(axis=1), data.classes)
    return load_run(out)


def examples(data: DataSet, split: str) -> Examples:
    """Return the pictures of a split with their class indices, all of one weight."""
    pictures = getattr(data, split)
    return Examples([picture.path for picture in pictures], data.targets(pictures), np.ones(len(pictures)))
