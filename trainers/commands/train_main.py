"""The main model's training, top to bottom."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from scipy.special import softmax

from cascade.errors import CanonistiaError
from cascade.images.preprocess import PreprocessSpec
from trainers.data.dataset import DataSet, load_data_set, too_few_to_export
from trainers.data.examples import Examples, SplitExamples, split_examples
from trainers.distributed.process_context import ProcessContext, process_context
from trainers.features.out_of_fold import keep_out_of_fold_probabilities, out_of_fold_probabilities
from trainers.loop.batch_size import fitting_batch
from trainers.loop.fit import Task, TrainingSetup
from trainers.loop.losses import multiclass_loss
from trainers.loop.scores import multiclass_scores
from trainers.loop.step_time import chosen_precision
from trainers.loop.teachers import Teacher, Teachers
from trainers.loop.training import check_recipe, preprocessing, train_network
from trainers.networks.backbones import backbone_spec
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import Recipe
from trainers.runs.evaluated import Evaluated
from trainers.runs.folder import Sidecar, TrainedRun, check_same_data, is_started, load_run, new_sidecar, read_config
from trainers.runs.label_issues import LabelIssue, likely_label_errors
from trainers.runs.opening import check_run_folder, open_run
from trainers.runs.record import RunRecord
from trainers.runs.report import ModelView, write_report
from trainers.runs.tracking import start_tracker, tracker_mode


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

    With ``resume`` an interrupted run continues, to the same result as without the interruption. ``report`` writes
    ``report.html``; for its likely label errors the features of the training pictures are computed with the backbone
    as it was before the training.

    Raises
    ------
    CanonistiaError
        The data set, the backbone, the weights, a setting or the run folder is not usable, or the run that is to be
        resumed has other settings.
    """
    torch.manual_seed(recipe.seed)
    process = process_context(recipe.device)
    backbone = backbone_spec(network_config.backbone)
    resumed = resume and is_started(out)
    if process.is_main:
        recipe = replace(recipe, tracker=tracker_mode(recipe.tracker))
    if process.is_main and not resumed:
        check_run_folder(out, overwrite)
    data = load_data_set(folder, recipe.seed)
    few = too_few_to_export({"validation": data.counts("validation")})
    if few and process.is_main:
        click.echo(few, err=True)
    loss = multiclass_loss(recipe.loss, recipe.label_smoothing, len(data.classes))
    task = Task(loss, multiclass_scores, best_by="top1")
    spec = preprocessing(network_config, backbone, data)
    with process.main_first():
        network = build_classifier(network_config, len(data.classes), recipe.dropout, backbone)
    if network_config.start:
        _start_from(network_config.start, network, folder, data)
    check_recipe(recipe, network, spec.size)
    recipe = _measured(recipe, network, spec.size, process, read_config(out) if resumed else None)

    examples = split_examples(data)
    teachers = [_teacher(run, folder, data, spec, recipe).to(process.device) for run in network_config.teachers]
    setup = TrainingSetup(recipe, task, process, out, Teachers(teachers, recipe.teacher_weight) if teachers else None)
    sidecar = new_sidecar(network_config, data, spec, recipe)
    config = _run_config(folder, data, network_config, recipe, sidecar)
    with open_run(out, config, overwrite, resumed, process) as is_open:
        if not is_open:
            return load_run(out)
        if process.is_main:
            _train_recorded(network, examples, setup, sidecar, config, report)
        else:
            train_network(network, examples, spec, setup, lambda *_: None)
        process.wait()
    return load_run(out)


def _measured(
    recipe: Recipe, network: Classifier, size: int, process: ProcessContext, before: Mapping[str, Any] | None
) -> Recipe:
    """Return the recipe with what is left to the machine: the batch that fits, and the faster precision.

    A resumed run keeps those of ``before``, its configuration.
    """
    if recipe.batch_size == 0:
        fitting = before["batch_size"] if before else fitting_batch(network, size, process.device)
        recipe = replace(recipe, batch_size=fitting)
    if recipe.precision == "auto":
        faster = before["precision"] if before else chosen_precision(recipe, network, size, process.device)
        recipe = replace(recipe, precision=process.gathered(faster)[0])  # one for all processes
    return recipe


def _run_config(
    folder: Path, data: DataSet, network_config: NetworkConfig, recipe: Recipe, sidecar: Sidecar
) -> dict[str, Any]:
    """Return what ``config.json`` holds, which a resumed run is compared with."""
    return {
        **recipe.as_dict(),
        **sidecar.as_config(),
        "data": folder.resolve().name,
        "data_weights": data.weights_sha256,
        "weights": str(network_config.weights) if network_config.weights else None,
        "pretrained": network_config.pretrained,
        "start": str(network_config.start) if network_config.start else None,
        **({"teachers": [str(run) for run in network_config.teachers]} if network_config.teachers else {}),
    }


def _start_from(run: Path, network: Classifier, folder: Path, data: DataSet) -> None:
    """Give a network the weights of a finished run, which must have been trained on the same pictures."""
    trained = load_run(run)
    check_same_data(folder, data, trained)
    if trained.sidecar.backbone != network.backbone_name:
        raise CanonistiaError(
            f"{run} is a run of {trained.sidecar.backbone}, and --backbone is {network.backbone_name}; a training "
            "starts from a run of its own backbone"
        )
    network.load_state_dict(trained.network.state_dict())


def _teacher(run: Path, folder: Path, data: DataSet, spec: PreprocessSpec, recipe: Recipe) -> Teacher:
    """Return a finished run as a teacher, which must have been trained on the same pictures, seen alike."""
    if recipe.unfreeze == "head":
        raise CanonistiaError(
            "a teacher answers about augmented pictures, and a frozen backbone sees each picture once; add --unfreeze "
            "all, or leave --teacher out"
        )
    trained = load_run(run)
    check_same_data(folder, data, trained)
    seen = trained.sidecar.preprocess
    if (seen.colour, seen.resize) != (spec.colour, spec.resize):
        raise CanonistiaError(
            f"the teacher {run} sees pictures as {seen.colour}, {seen.resize}, and this training as {spec.colour}, "
            f"{spec.resize}; give both the same --colour and --resize"
        )
    return Teacher(trained.network.eval(), seen.size)


def _train_recorded(
    network: Classifier,
    examples: SplitExamples,
    setup: TrainingSetup,
    sidecar: Sidecar,
    config: dict[str, Any],
    report: bool,
) -> None:
    out, spec, validation = setup.folder, sidecar.preprocess, examples.validation
    tracker = start_tracker(setup.recipe.tracker, out, out.name, group=out.name, job="train-main", config=config)
    with RunRecord(out, sidecar, tracker, setup.task.best_by, group=out.name) as record:
        logits = train_network(network, examples, spec, setup, record.epoch)  # (N, K)
        probabilities = softmax(logits.astype(np.float64), axis=1)
        evaluated = Evaluated(validation.paths, validation.targets, probabilities, tuple(sidecar.classes))
        record.evaluation(evaluated)
        if report:
            trained = load_run(out)
            issues = _label_issues(trained, examples.training, setup.process.device)
            write_report(out, evaluated, ModelView(trained.network, spec), issues)


def _label_issues(run: TrainedRun, training: Examples, device: str) -> list[LabelIssue] | None:
    if np.bincount(training.targets).min() < 2:
        return None  # the only picture of a class is in no fold that leaves it out
    out_of_fold = out_of_fold_probabilities(run, training.paths, training.targets, device)  # (N, K)
    keep_out_of_fold_probabilities(run.folder, training.paths, training.targets, out_of_fold)
    return likely_label_errors(training.paths, training.targets, out_of_fold, run.sidecar.classes)
