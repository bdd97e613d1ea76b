"""The main model's training, top to bottom."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from scipy.special import softmax

from cascade.files import write_json
from trainers.data.augment import augmentation
from trainers.data.dataset import DataSet, load_data_set
from trainers.distributed.process_context import ProcessContext, process_context
from trainers.features.out_of_fold import keep_out_of_fold_probabilities, out_of_fold_probabilities
from trainers.loop.batch_size import fitting_batch
from trainers.loop.fit import Task
from trainers.loop.losses import multiclass_loss
from trainers.loop.scores import multiclass_scores
from trainers.loop.training import Examples, NetworkConfig, preprocessing, sidecar_for, train_network
from trainers.networks.backbones import backbone_spec
from trainers.networks.classifier import build_classifier
from trainers.networks.unfreeze import unfreeze_plan
from trainers.recipe import Recipe
from trainers.runs.checkpoint import check_same_config
from trainers.runs.evaluated import Evaluated
from trainers.runs.folder import SUMMARY, TrainedRun, check_run_folder, is_begun, load_run, new_run, read_config
from trainers.runs.label_issues import LabelIssue, likely_label_errors
from trainers.runs.record import RunRecord
from trainers.runs.report import ModelView, write_report
from trainers.runs.tracking import start_tracker


def train_main(
    folder: Path,
    out: Path,
    network_config: NetworkConfig,
    recipe: Recipe,
    overwrite: bool = False,
    resume: bool = False,
    report: bool = True,
) -> TrainedRun:
    """Train the main multiclass network on a data set and return the finished run.

    With ``resume`` a run that was interrupted goes on, to the result that it would have had. ``report`` writes
    ``report.html``, whose likely label errors take a look at the training pictures with the backbone as it was.

    Raises
    ------
    CanonistiaError
        The data set, the backbone, the weights, a setting or the run folder is not usable, or the run that is to be
        resumed has other settings.
    """
    torch.manual_seed(recipe.seed)
    place = process_context(recipe.device)
    backbone_spec(network_config.backbone)
    resumed = resume and is_begun(out)
    if place.is_main and not resumed:
        check_run_folder(out, overwrite)
    data = load_data_set(folder, recipe.seed)
    loss = multiclass_loss(recipe.loss, recipe.label_smoothing, len(data.classes))
    task = Task(loss, multiclass_scores, best_by="top1")
    spec = preprocessing(network_config, data)
    with place.main_first():
        network = build_classifier(
            network_config.backbone,
            len(data.classes),
            recipe.dropout,
            network_config.pretrained,
            network_config.weights,
            network_config.flip,
            spec.size,
        )
    unfreeze_plan(recipe.unfreeze, len(network.backbone.stages), recipe.epochs)
    if recipe.batch_size == 0:
        kept = read_config(out)["batch_size"] if resumed else fitting_batch(network, spec.size, place.device)
        recipe = replace(recipe, batch_size=kept)
    augmentation(recipe.augment, spec.size)

    training, validation = (examples(data, split) for split in ("training", "validation"))
    sidecar = sidecar_for(network_config.backbone, network_config.flip, data, spec, recipe)
    config = {**recipe.as_dict(), **sidecar.as_config(), "data": folder.resolve().name}
    config["weights"] = str(network_config.weights) if network_config.weights else None
    config["pretrained"] = network_config.pretrained
    with run_folder(out, config, overwrite, resumed, place) as is_open:
        if not is_open:
            return load_run(out)
        if not place.is_main:
            train_network(network, training, validation, spec, recipe, task, place, out, lambda *_: None)
            place.wait()
            return load_run(out)
        tracker = start_tracker(recipe.tracker, out, out.name, group=out.name, job="train-main", config=config)
        with RunRecord(out, sidecar, tracker, task.best_by, group=out.name) as record:
            logits = train_network(
                network, training, validation, spec, recipe, task, place, out, record.epoch
            )  # (N, K)
            probabilities = softmax(logits.astype(np.float64), axis=1)
            evaluated = Evaluated(validation.paths, validation.targets, probabilities, data.classes)
            record.evaluation(evaluated)
            if report:
                trained = load_run(out)
                model_view = ModelView(trained.network, spec)
                write_report(out, evaluated, model_view, _suspects(trained, training, data.classes, place.device))
        place.wait()
    return load_run(out)


def _suspects(run: TrainedRun, training: Examples, classes: tuple[str, ...], device: str) -> list[LabelIssue] | None:
    if np.bincount(training.targets).min() < 2:
        return None  # a picture that is alone in its class is always seen
    unseen = out_of_fold_probabilities(run, training.paths, training.targets, device)  # (N, K)
    keep_out_of_fold_probabilities(run.folder, training.paths, training.targets, unseen)
    return likely_label_errors(training.paths, training.targets, unseen, classes)


@contextmanager
def run_folder(
    out: Path, config: dict[str, Any], overwrite: bool, resumed: bool, place: ProcessContext
) -> Iterator[bool]:
    """Open the folder of a new or resumed run, in every process; give False when the run is finished already.

    Raises
    ------
    CanonistiaError
        The run that is to be resumed has other settings, or a new folder cannot be written.
    """
    if resumed:
        check_same_config(out, read_config(out), config)
        finished = (out / SUMMARY).exists()
        if finished and place.is_main:
            click.echo(f"{out} is finished; there is nothing to resume", err=True)
        yield not finished
    elif not place.is_main:
        place.wait()  # for the main process to make the folder
        yield True
    else:
        with new_run(out, overwrite):
            write_json(out / "config.json", config)
            place.wait()
            yield True


def examples(data: DataSet, split: str) -> Examples:
    """Return the pictures of a split with their class indices, all of one weight."""
    pictures = getattr(data, split)
    return Examples([picture.path for picture in pictures], data.targets(pictures), np.ones(len(pictures)))
