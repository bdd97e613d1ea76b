"""The submodels' training: one binary model per class, on a shared trunk or each with its own network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click
import torch

from cascade.bundle.manifest import HeadFeatures
from cascade.errors import CanonistiaError
from cascade.images.preprocess import PreprocessSpec
from cascade.terminal import printable
from trainers.commands.submodel import Prepared, train_submodel
from trainers.data.dataset import DataSet, load_data_set
from trainers.data.examples import SplitExamples, split_examples
from trainers.distributed.device import resolve_device
from trainers.features.cache import SplitFeatures, cached_features, features_sha256
from trainers.features.composed import ComposedFeatures, composed_features
from trainers.features.kept_graphs import weights_sha256
from trainers.features.out_of_fold import out_of_fold_probabilities
from trainers.loop.step_time import chosen_precision
from trainers.loop.training import check_recipe, check_used, preprocessing
from trainers.networks.backbones import backbone_spec
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import COMPOSITIONS, DEFAULT_COMPOSITION, DEFAULT_POLICY, POLICIES, Recipe
from trainers.runs.folder import TrainedRun, check_same_data, is_started, load_run, read_config
from trainers.runs.opening import check_run_folder
from trainers.runs.submodels import (
    MainFeatures,
    SubmodelSet,
    check_set,
    class_run,
    join_set,
    load_trunk,
    read_submodel_set,
)
from trainers.runs.tracking import tracker_mode


@dataclass(frozen=True)
class SubmodelPlan:
    """Which submodels are trained, and on what.

    ``trunk`` is a finished run whose network all of them share; with ``features`` "both" their heads read its features
    and the main model's. With ``compose`` "presence" heads on a trunk learn from composed pictures, too, each of which
    shows both its classes (:mod:`trainers.features.composed`).
    """

    network_config: NetworkConfig
    kind: Literal["shared", "own"] = "shared"
    trunk: Path | None = None
    classes: tuple[str, ...] = ()
    negatives: str = DEFAULT_POLICY
    features: HeadFeatures = "trunk"
    engine: Literal["local", "ray"] = "local"
    kept: Path | None = None  # a folder of submodels, whose trunk is used
    compose: str = DEFAULT_COMPOSITION


def train_sub(
    folder: Path,
    main_run: Path,
    out: Path,
    plan: SubmodelPlan,
    recipe: Recipe,
    overwrite: bool,
    resume: bool = False,
) -> list[str]:
    """Train a binary submodel for the named classes, or for all, and return the classes trained.

    With ``resume`` finished submodels are kept and an interrupted one continues.

    Raises
    ------
    CanonistiaError
        The data set is not the main run's, a class is unknown, or a setting or folder is not usable.
    """
    device = resolve_device(recipe.device)
    recipe = replace(recipe, tracker=tracker_mode(recipe.tracker))  # not again for each submodel
    main = load_run(main_run)
    data = load_data_set(folder, main.sidecar.seed)
    check_same_data(folder, data, main)
    wanted = _wanted_classes(plan.classes, data.classes)
    for label in wanted:
        if not (resume and is_started(class_run(out, label))):
            check_run_folder(class_run(out, label), overwrite)
    _check_plan(plan, recipe)
    torch.manual_seed(recipe.seed)
    trunk, spec = _trunk(plan, folder, data, recipe.dropout)
    check_recipe(recipe, trunk, spec.size)
    common = _common(plan, main, data, trunk, spec)
    check_set(out, common)

    examples = split_examples(data)
    training, features, composed = examples.training, None, None
    out_of_fold = out_of_fold_probabilities(main, training.paths, training.targets, device)  # (N, K)
    if plan.kind == "shared":
        read = [(trunk, spec), *([(main.network, main.sidecar.preprocess)] if plan.features == "both" else [])]
        features, composed = _head_inputs(plan.compose, read, examples, recipe)
    join_set(out, common, trunk, plan.trunk)
    prepared = Prepared(
        out=out,
        data=data,
        examples=examples,
        out_of_fold=out_of_fold,
        features=features,
        composed=composed,
        start=None if features else trunk.backbone.state_dict(),
        common=common,
        recipe=_with_precision(recipe, trunk, spec.size, [class_run(out, label) for label in wanted if resume]),
        config=_set_config(plan, folder, data, main_run),
        group=main_run.name,
        negatives=plan.negatives,
        overwrite=overwrite,
        resume=resume,
    )
    for label, scores in trained_by(plan.engine)(prepared, wanted):
        click.echo(_score_line(label, scores), err=True)
    return wanted


def _with_precision(recipe: Recipe, network: Classifier, size: int, resumed: Sequence[Path]) -> Recipe:
    """Return the recipe with a precision; resumed runs keep what was measured for the first of them."""
    begun = [run for run in resumed if is_started(run)]
    if recipe.precision == "auto" and begun:
        return replace(recipe, precision=read_config(begun[0])["precision"])
    return replace(recipe, precision=chosen_precision(recipe, network, size, resolve_device(recipe.device)))


def _score_line(label: str, scores: Mapping[str, float]) -> str:
    return f"{printable(label)}: " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items())


def _common(
    plan: SubmodelPlan, main: TrainedRun, data: DataSet, trunk: Classifier, spec: PreprocessSpec
) -> SubmodelSet:
    main_features = None
    if plan.features == "both":
        sha256 = features_sha256(main.network, main.sidecar.preprocess)
        main_features = MainFeatures(main.network.backbone.features, sha256)
    return SubmodelSet(
        kind=plan.kind,
        backbone=trunk.backbone_name,
        preprocess=spec,
        classes=list(data.classes),
        data_fingerprint=data.fingerprint,
        backbone_sha256=weights_sha256(trunk.backbone),
        flip=trunk.flip,
        main_features=main_features,
    )


def _set_config(plan: SubmodelPlan, folder: Path, data: DataSet, main_run: Path) -> dict[str, Any]:
    """Return what the ``config.json`` of every submodel holds besides its recipe and sidecar."""
    return {
        "data": folder.resolve().name,
        "data_weights": data.weights_sha256,
        "kind": plan.kind,
        "negatives": plan.negatives,
        "main": main_run.name,
        "trunk": plan.trunk.name if plan.trunk else None,
        "features": plan.features,
        "compose": plan.compose,
    }


def _head_inputs(
    compose: str, networks: Sequence[tuple[Classifier, PreprocessSpec]], examples: SplitExamples, recipe: Recipe
) -> tuple[SplitFeatures, ComposedFeatures | None]:
    """Return the features of several networks side by side, for each picture (N, sum of their numbers).

    The second are those of composed pictures, where these are learned from.
    """
    device = resolve_device(recipe.device)
    training, validation = (
        torch.cat([cached_features(network, part.paths, spec, device, recipe.workers) for network, spec in networks], 1)
        for part in (examples.training, examples.validation)
    )
    composed = None
    if compose == "presence":
        composed = composed_features(networks, examples.training, device, recipe.workers, recipe.seed)
    return SplitFeatures(training, validation), composed


def _check_plan(plan: SubmodelPlan, recipe: Recipe) -> None:
    if plan.negatives not in POLICIES:
        raise CanonistiaError(f"unknown negative policy '{plan.negatives}'; expected one of {', '.join(POLICIES)}")
    if plan.compose not in COMPOSITIONS:
        raise CanonistiaError(f"unknown composition '{plan.compose}'; expected one of {', '.join(COMPOSITIONS)}")
    if recipe.batch_size == 0:
        raise CanonistiaError(
            "--batch-size is 0, and only train-main fits a batch to a GPU's memory; give the number of images per batch"
        )
    if plan.kind == "own":
        if plan.features == "both":
            raise CanonistiaError(
                "--own-networks read pixels and no features; leave --features both out, or share a trunk"
            )
        if plan.compose != "none":
            raise CanonistiaError(
                f"--compose {plan.compose} is for heads on a shared trunk, and --own-networks have none; leave one of "
                "them out"
            )
        return
    check_used(recipe)
    if recipe.unfreeze != "head":
        raise CanonistiaError(
            f"--unfreeze is {recipe.unfreeze}, expected head: a shared trunk stays frozen; fine-tune it with "
            "train-main and give that run as --trunk, or train whole networks with --own-networks"
        )


def trained_by(engine: str) -> Callable[[Prepared, Sequence[str]], Iterator[tuple[str, dict[str, float]]]]:
    """Return the function that trains submodels: one after another in this process, or in parallel with Ray."""
    if engine == "ray":
        from trainers.commands.ray_engine import train_side_by_side

        return train_side_by_side
    return lambda prepared, labels: ((label, train_submodel(prepared, label)) for label in labels)


def _trunk(plan: SubmodelPlan, folder: Path, data: DataSet, dropout: float) -> tuple[Classifier, PreprocessSpec]:
    if plan.kept:
        kept = read_submodel_set(plan.kept)
        return load_trunk(plan.kept, kept), kept.preprocess
    if plan.trunk:
        finished = load_run(plan.trunk)
        check_same_data(folder, data, finished)
        finished.network.flip = finished.network.flip or plan.network_config.flip
        return finished.network, finished.sidecar.preprocess
    config = plan.network_config
    backbone = backbone_spec(config.backbone)
    spec = preprocessing(config, backbone, data)
    return build_classifier(config, 1, dropout, backbone), spec


def _wanted_classes(named: Sequence[str], known: Sequence[str]) -> list[str]:
    unknown = sorted(set(named) - set(known))
    if unknown:
        raise CanonistiaError(f"unknown class {', '.join(unknown)}; the data set has {', '.join(known)}")
    return [label for label in known if label in named] if named else list(known)
