"""One submodel's training: is the picture of this class, or not?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import nn
from torch.nn import functional

from trainers.commands.train_main import run_folder
from trainers.data.dataset import DataSet
from trainers.distributed.device import resolve_device
from trainers.distributed.process_context import ProcessContext
from trainers.features.negatives import example_weights
from trainers.loop.fit import Task
from trainers.loop.scores import binary_scores
from trainers.loop.training import Examples, sidecar_for, train_head, train_network
from trainers.networks.classifier import build_classifier
from trainers.recipe import Recipe
from trainers.runs.evaluated import Evaluated
from trainers.runs.folder import is_begun, read_metrics
from trainers.runs.record import RunRecord
from trainers.runs.report import write_report
from trainers.runs.submodels import SubmodelSet, class_run
from trainers.runs.tracking import start_tracker


def _binary_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits[:, 0], targets.float(), reduction="none")


_TASK = Task(_binary_loss, binary_scores, best_by="average_precision")


@dataclass(frozen=True)
class Prepared:
    """What the trainings of all submodels share; plain data, which travels to the processes of other machines.

    ``unseen`` are the cross-fitted probabilities of the training pictures, (N, K). With a shared trunk ``features``
    holds those of training (N, D) and validation (M, D); else ``start`` holds the weights that each network starts
    from.
    """

    out: Path
    data: DataSet
    training: Examples
    validation: Examples
    unseen: np.ndarray
    features: tuple[torch.Tensor, torch.Tensor] | None
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
    recipe, data, training, validation = prepared.recipe, prepared.data, prepared.training, prepared.validation
    place = ProcessContext(resolve_device(recipe.device))
    positive = data.classes.index(label)
    weights = example_weights(prepared.negatives, training.targets, positive, prepared.unseen)
    kept = np.flatnonzero(weights)
    learn = Examples(
        [training.paths[row] for row in kept], (training.targets == positive)[kept].astype(int), weights[kept]
    )
    check = Examples(validation.paths, (validation.targets == positive).astype(int), np.ones(len(validation.paths)))
    common = prepared.common
    spec = common.preprocess
    sidecar = sidecar_for(common.backbone, common.flip, data, spec, recipe, positive=label)
    config = {**recipe.as_dict(), **sidecar.as_config(), **prepared.config}
    run = class_run(prepared.out, label)
    resumed = prepared.resume and is_begun(run)
    with run_folder(run, config, prepared.overwrite, resumed, place) as is_open:
        if not is_open:
            last = read_metrics(run)[-1]
            return {name: last[f"validation_{name}"] for name in ("loss", "average_precision", "precision", "recall")}
        tracker = start_tracker(recipe.tracker, run, label, group=prepared.group, job="train-sub", config=config)
        torch.manual_seed(recipe.seed)
        with RunRecord(run, sidecar, tracker, _TASK.best_by, prepared.group, quiet=True) as record:
            if prepared.features:
                seen, unseen = prepared.features
                rows = torch.from_numpy(kept)
                head = nn.Linear(seen.shape[1], 1)
                logits = train_head(head, seen[rows], learn, unseen, check, recipe, _TASK, place, run, record.epoch)
            else:
                network = build_classifier(
                    common.backbone, 1, recipe.dropout, pretrained=False, flip=common.flip, size=spec.size
                )
                network.backbone.load_state_dict(prepared.start or {})
                logits = train_network(network, learn, check, spec, recipe, _TASK, place, run, record.epoch)
            yes = expit(logits[:, 0].astype(np.float64))
            both = np.stack([1 - yes, yes], axis=1)  # (M, 2)
            evaluated = Evaluated(check.paths, check.targets, both, ("other", label))
            record.evaluation(evaluated)
            write_report(run, evaluated, None, None)
    return binary_scores(logits, check.targets)
