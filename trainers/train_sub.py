"""The submodels' training: one binary model a class, on a shared trunk or each on a network of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cascade.bundle import HeadFeatures
from cascade.errors import CanonistiaError
from cascade.preprocess import PreprocessSpec
from trainers.dataset import DataSet, load_data_set
from trainers.device import resolve_device
from trainers.features import cached_features, features_sha256, weights_sha256
from trainers.fit import Task
from trainers.negatives import cross_fitted, example_weights
from trainers.network import Classifier, build_classifier, frozen_stages
from trainers.recipe import DEFAULT_POLICY, POLICIES, Recipe
from trainers.record import RunRecord
from trainers.runs import TrainedRun, check_run_folder, check_same_data, load_run, new_run, read_config, write_json
from trainers.scores import binary_scores
from trainers.submodels import MainFeatures, SubmodelSet, check_set, class_run, join_set
from trainers.tracking import start_tracker
from trainers.train_main import examples
from trainers.training import Examples, Eyes, check_used, preprocessing, sidecar_for, train_head, train_network


def _binary_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits[:, 0], targets.float(), reduction="none")


_TASK = Task(_binary_loss, binary_scores, best_by="average_precision")


@dataclass(frozen=True)
class SubmodelPlan:
    """Which submodels are trained, and on what.

    ``trunk`` is a finished run whose network all of them share; ``features`` says what their heads read of it, or of
    it and the main model.
    """

    eyes: Eyes
    kind: Literal["shared", "own"] = "shared"
    trunk: Path | None = None
    classes: tuple[str, ...] = ()
    negatives: str = DEFAULT_POLICY
    features: HeadFeatures = "trunk"


def train_sub(
    folder: Path, main_run: Path, out: Path, plan: SubmodelPlan, recipe: Recipe, overwrite: bool
) -> list[str]:
    """Train a binary submodel for the named classes, or for all, and return the classes trained.

    Raises
    ------
    CanonistiaError
        The data set is not the main run's, a class is unknown, or a setting or folder is not usable.
    """
    device = resolve_device(recipe.device)
    main = load_run(main_run)
    data = load_data_set(folder, main.sidecar.seed)
    check_same_data(folder, data, main)
    wanted = _wanted_classes(plan.classes, data.classes)
    for label in wanted:
        check_run_folder(class_run(out, label), overwrite)
    _check_plan(plan, recipe)
    trunk, spec = _trunk(plan, folder, data, recipe.dropout)
    frozen_stages(recipe.unfreeze, len(trunk.backbone.stages))
    common = SubmodelSet(
        kind=plan.kind,
        backbone=trunk.backbone_name,
        preprocess=spec,
        classes=list(data.classes),
        data_fingerprint=data.fingerprint,
        backbone_sha256=weights_sha256(trunk.backbone),
        flip=trunk.flip,
        main_features=_described(main) if plan.features == "both" else None,
    )
    check_set(out, common)

    training, validation = (examples(data, split) for split in ("training", "validation"))
    untrained = _untrained_on_these(main, recipe.dropout)
    main_features = cached_features(untrained, training.paths, main.sidecar.preprocess, device)
    unseen_answers = cross_fitted(main_features.numpy(), training.targets)  # (N, K)
    features = None
    if plan.kind == "shared":
        read = [(trunk, spec), *([(main.network, main.sidecar.preprocess)] if plan.features == "both" else [])]
        features = [_side_by_side(read, part.paths, device) for part in (training, validation)]

    join_set(out, common, trunk, plan.trunk)
    for label in wanted:
        positive = data.classes.index(label)
        weights = example_weights(plan.negatives, training.targets, positive, unseen_answers)
        kept = np.flatnonzero(weights)
        learn = Examples(
            [training.paths[row] for row in kept], (training.targets == positive)[kept].astype(int), weights[kept]
        )
        check = Examples(validation.paths, (validation.targets == positive).astype(int), np.ones(len(validation.paths)))
        sidecar = sidecar_for(trunk, data, spec, recipe, positive=label)
        config = {
            **recipe.as_dict(),
            **sidecar.as_config(),
            "data": folder.resolve().name,
            "kind": plan.kind,
            "negatives": plan.negatives,
            "main": main_run.name,
            "trunk": plan.trunk.name if plan.trunk else None,
            "features": plan.features,
        }
        run = class_run(out, label)
        with new_run(run, overwrite):
            write_json(run / "config.json", config)
            tracker = start_tracker(recipe.tracker, run, label, group=main_run.name, job="train-sub", config=config)
            torch.manual_seed(recipe.seed)
            with RunRecord(run, sidecar, tracker, _TASK.best_by, quiet=True) as record:
                if features:
                    seen, unseen = features
                    head = nn.Linear(seen.shape[1], 1)
                    rows = torch.from_numpy(kept)
                    logits = train_head(head, seen[rows], learn, unseen, check, recipe, _TASK, device, record.epoch)
                else:
                    network = build_classifier(
                        trunk.backbone_name, 1, recipe.dropout, pretrained=False, flip=trunk.flip
                    )
                    network.backbone.load_state_dict(trunk.backbone.state_dict())
                    logits = train_network(network, learn, check, spec, recipe, _TASK, record, device)
                record.confusion(check.targets, (logits[:, 0] >= 0).astype(int), ("other", label))
        scores = binary_scores(logits, check.targets)
        click.echo(f"{label}: " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()), err=True)
    return wanted


def _check_plan(plan: SubmodelPlan, recipe: Recipe) -> None:
    if plan.negatives not in POLICIES:
        raise CanonistiaError(f"unknown negative policy '{plan.negatives}'; expected one of {', '.join(POLICIES)}")
    if plan.kind == "own":
        if plan.features == "both":
            raise CanonistiaError(
                "--own-networks see pixels and read no features; leave --features both out, or share a trunk"
            )
        return
    check_used(recipe)
    if recipe.unfreeze != "head":
        raise CanonistiaError(
            "a shared trunk is frozen while its heads are trained; fine-tune it once with train-main and give "
            "that run as --trunk, or train every submodel whole with --own-networks"
        )


def _described(main: TrainedRun) -> MainFeatures:
    return MainFeatures(main.network.backbone.features, features_sha256(main.network, main.sidecar.preprocess))


def _side_by_side(
    networks: Sequence[tuple[Classifier, PreprocessSpec]], paths: Sequence[Path], device: str
) -> torch.Tensor:
    """Return the features of several networks for each picture, (N, sum of their numbers)."""
    return torch.cat([cached_features(network, paths, spec, device) for network, spec in networks], dim=1)


def _untrained_on_these(main: TrainedRun, dropout: float) -> Classifier:
    """Return the main model's network as it was before it saw a training picture, but for its head."""
    config = read_config(main.folder)
    if config["unfreeze"] == "head":
        return main.network
    weights = Path(config["weights"]) if config.get("weights") else None
    return build_classifier(main.sidecar.backbone, 1, dropout, pretrained=True, weights=weights, flip=main.sidecar.flip)


def _trunk(plan: SubmodelPlan, folder: Path, data: DataSet, dropout: float) -> tuple[Classifier, PreprocessSpec]:
    if plan.trunk:
        finished = load_run(plan.trunk)
        check_same_data(folder, data, finished)
        finished.network.flip = finished.network.flip or plan.eyes.flip
        return finished.network, finished.sidecar.preprocess
    network = build_classifier(
        plan.eyes.backbone, 1, dropout, pretrained=True, weights=plan.eyes.weights, flip=plan.eyes.flip
    )
    return network, preprocessing(plan.eyes, data)


def _wanted_classes(named: Sequence[str], known: Sequence[str]) -> list[str]:
    unknown = sorted(set(named) - set(known))
    if unknown:
        raise CanonistiaError(f"unknown class {', '.join(unknown)}; the data set has {', '.join(known)}")
    return [label for label in known if label in named] if named else list(known)
