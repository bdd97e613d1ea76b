"""One submodel's training: is the picture of this class, or not?"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import nn
from torch.nn import functional

from trainers.data.dataset import DataSet
from trainers.data.examples import Examples, SplitExamples, joined
from trainers.distributed.device import resolve_device
from trainers.distributed.process_context import ProcessContext
from trainers.features.cache import SplitFeatures
from trainers.features.composed import ComposedFeatures
from trainers.features.negatives import example_weights
from trainers.loop.fit import Task, TrainingSetup
from trainers.loop.scores import binary_scores
from trainers.loop.training import OnEpoch, train_head, train_network
from trainers.networks.classifier import build_classifier
from trainers.recipe import Recipe
from trainers.runs.evaluated import Evaluated
from trainers.runs.folder import is_started, new_sidecar, read_metrics
from trainers.runs.opening import open_run
from trainers.runs.record import RunRecord
from trainers.runs.report import write_report
from trainers.runs.submodels import SubmodelSet, class_run
from trainers.runs.tracking import start_tracker


def _binary_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits[:, 0], targets.float(), reduction="none")


_TASK = Task(_binary_loss, binary_scores, best_by="average_precision")


@dataclass(frozen=True)
class Prepared:
    """What the trainings of all submodels share; plain data, which is sent to the processes of other machines.

    ``out_of_fold`` are the main model's probabilities of the training pictures, (N, K). With a shared trunk
    ``features`` are those of all examples, and ``composed`` those of composed pictures that are learned from as well;
    else ``start`` holds the weights that each network starts from.
    """

    out: Path
    data: DataSet
    examples: SplitExamples
    out_of_fold: np.ndarray
    features: SplitFeatures | None
    composed: ComposedFeatures | None
    start: dict[str, torch.Tensor] | None
    common: SubmodelSet
    recipe: Recipe
    config: dict[str, Any]
    group: str
    negatives: str
    overwrite: bool
    resume: bool


def train_submodel(prepared: Prepared, label: str) -> dict[str, float]:
    """Train the submodel of one class and return its scores on validation."""
    recipe, spec, run = prepared.recipe, prepared.common.preprocess, class_run(prepared.out, label)
    kept, examples = _binary_examples(prepared, label)
    sidecar = new_sidecar(prepared.common.network_config, prepared.data, spec, recipe, positive=label)
    config = {**recipe.as_dict(), **sidecar.as_config(), **prepared.config}
    resumed = prepared.resume and is_started(run)
    process = ProcessContext(resolve_device(recipe.device))
    setup = TrainingSetup(recipe, _TASK, process, run)
    with open_run(run, config, prepared.overwrite, resumed, process) as is_open:
        if not is_open:
            last = read_metrics(run)[-1]
            return {name: last[f"validation_{name}"] for name in ("loss", "average_precision", "precision", "recall")}
        tracker = start_tracker(recipe.tracker, run, label, group=prepared.group, job="train-sub", config=config)
        torch.manual_seed(recipe.seed)
        with RunRecord(run, sidecar, tracker, _TASK.best_by, prepared.group, quiet=True) as record:
            logits = _validation_logits(prepared, kept, examples, setup, record.epoch)  # (M, 1)
            yes = expit(logits[:, 0].astype(np.float64))
            both = np.stack([1 - yes, yes], axis=1)  # (M, 2)
            validation = examples.validation
            evaluated = Evaluated(validation.paths, validation.targets, both, ("other", label))
            record.evaluation(evaluated)
            write_report(run, evaluated, None, None)
    return binary_scores(logits, examples.validation.targets)


def _binary_examples(prepared: Prepared, label: str) -> tuple[np.ndarray, SplitExamples]:
    """Return the indices of the training pictures that count, and all examples with targets 0 and 1.

    Composed pictures, which have no indices, come after these in the training examples.
    """
    training, validation = prepared.examples.training, prepared.examples.validation
    positive = prepared.data.classes.index(label)
    weights = example_weights(prepared.negatives, training.targets, positive, prepared.out_of_fold, training.weights)
    kept = np.flatnonzero(weights)
    learn = Examples(
        [training.paths[index] for index in kept],
        (training.targets == positive)[kept].astype(int),
        weights[kept],
        training.sources[kept],
    )
    if prepared.composed:
        learn = joined(learn, prepared.composed.examples(positive))
    check = replace(validation, targets=(validation.targets == positive).astype(int))
    return kept, SplitExamples(learn, check)


def _validation_logits(
    prepared: Prepared, kept: np.ndarray, examples: SplitExamples, setup: TrainingSetup, on_epoch: OnEpoch
) -> np.ndarray:
    """Train a head on the shared trunk's features, or a whole network, and return the validation logits (M, 1)."""
    if prepared.features:
        training, validation = prepared.features.training, prepared.features.validation
        learned = training[torch.from_numpy(kept)]  # (N, D)
        if prepared.composed:
            learned = torch.cat([learned, prepared.composed.features])
        features = SplitFeatures(learned, validation)
        return train_head(nn.Linear(training.shape[1], 1), features, examples, setup, on_epoch)
    common = prepared.common
    network = build_classifier(common.network_config, 1, setup.recipe.dropout)
    network.backbone.load_state_dict(prepared.start or {})
    return train_network(network, examples, common.preprocess, setup, on_epoch)
