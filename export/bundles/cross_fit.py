"""Cross-fitting: few pictures are neither held out nor answered by heads that were trained on them.

Heads are trained in folds on features of frozen networks. Every picture is answered by the heads of its fold, which
were trained on the other folds; calibration, rules and figures come from these answers. What is served is the mean of
all folds' heads, which for linear heads is the mean of their logits. So it answers at the scale that its calibration
was fitted on, as one that is trained on all pictures, in more steps, would not.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import nn

from cascade.errors import CanonistiaError
from export.bundles.trained import Graphs, Trained, head_features, main_features
from export.fitting.stage_logits import FOLDS, StageLogits
from export.graphs.distance import ClassDistances, distances, fit_distances
from export.plan import ExportPlan
from trainers.data.dataset import FEWEST_VALIDATION
from trainers.features.negatives import cross_fitted
from trainers.loop.heads import main_head, submodel_heads
from trainers.recipe import Recipe
from trainers.runs.folder import read_config
from trainers.runs.submodels import TRUNK_CONFIG, class_run

METHOD = (
    " Every picture was answered by heads that were trained without it, on frozen networks; the bundle's heads are the "
    "means of theirs."
)


@dataclass(frozen=True)
class StageFeatures:
    """Features of frozen networks about N pictures: the main model's (N, D), and what submodels' heads read (N, E)."""

    main: torch.Tensor
    submodels: torch.Tensor

    def take(self, indices: np.ndarray) -> "StageFeatures":
        """Return the features of some pictures."""
        chosen = torch.from_numpy(indices)
        return StageFeatures(self.main[chosen], self.submodels[chosen])


@dataclass(frozen=True)
class HeadRecipes:
    """How heads are trained: the main model's, and the submodels' with their policy of negatives."""

    main: Recipe
    submodels: Recipe
    negatives: str


@dataclass(frozen=True)
class Heads:
    """The heads of both stages, one layer of K outputs each, and the distances fitted on the same pictures."""

    main: nn.Linear
    submodels: nn.Linear
    distances: ClassDistances

    def logits(self, features: StageFeatures, targets: np.ndarray) -> StageLogits:
        """Return the logits about pictures of the given classes (N,)."""
        with torch.inference_mode():
            main, submodels = self.main(features.main).numpy(), self.submodels(features.submodels).numpy()
        return StageLogits(main, distances(self.distances, features.main), submodels, targets)


@dataclass(frozen=True)
class CrossFitted:
    """The heads of each fold, and the fold (N,) in which each picture was left out."""

    heads: tuple[Heads, ...]
    fold: np.ndarray

    def logits(self, features: StageFeatures, targets: np.ndarray, fold: np.ndarray) -> StageLogits:
        """Return the logits about pictures (N,), each by the heads of its fold (N,)."""
        parts = [np.flatnonzero(fold == number) for number in range(len(self.heads))]
        answered = [
            heads.logits(features.take(indices), targets[indices])
            for heads, indices in zip(self.heads, parts, strict=True)
        ]
        back = np.argsort(np.concatenate(parts))
        return StageLogits(
            np.concatenate([part.main for part in answered])[back],
            np.concatenate([part.distance for part in answered])[back],
            np.concatenate([part.submodels for part in answered])[back],
            targets,
        )

    def mean(self) -> tuple[nn.Linear, nn.Linear]:
        """Return the mean of the main heads, and of the submodels' heads."""
        return _mean([heads.main for heads in self.heads]), _mean([heads.submodels for heads in self.heads])


@dataclass(frozen=True)
class Pictures:
    """Class indices, weights in training, and groups of copies of N pictures, each (N,)."""

    targets: np.ndarray
    weights: np.ndarray
    groups: np.ndarray


def cross_fit(features: StageFeatures, pictures: Pictures, recipes: HeadRecipes, seed: int) -> CrossFitted:
    """Train heads in folds, stratified by class; copies of a picture share a fold.

    Raises
    ------
    CanonistiaError
        A class has fewer than three pictures: one is answered, and the policy of negatives needs two others.
    """
    targets, groups = pictures.targets, pictures.groups
    fewest = min(len(np.unique(groups[targets == label])) for label in range(int(targets.max()) + 1))
    if fewest < FEWEST_VALIDATION:
        raise CanonistiaError(
            f"a class has {fewest} pictures, where copies count once, expected at least {FEWEST_VALIDATION} to "
            "cross-fit; add pictures of it"
        )
    splitter = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
    fold = np.empty(len(targets), dtype=int)
    heads = []
    for number, (others, held_out) in enumerate(splitter.split(targets, targets, groups)):
        fold[held_out] = number
        heads.append(_heads(features.take(others), targets[others], pictures.weights[others], recipes))
    return CrossFitted(tuple(heads), fold)


def with_mean_heads(trained: Trained, crossed: CrossFitted) -> Trained:
    """Return the cascade that is served: its networks, with the means of all folds' heads."""
    main, submodels = crossed.mean()
    network = copy.deepcopy(trained.main.network)
    network.head.load_state_dict(main.state_dict())
    heads: list[nn.Module] = []
    for weight, bias in zip(submodels.weight.detach(), submodels.bias.detach(), strict=True):
        head = nn.Linear(len(weight), 1)
        head.load_state_dict({"weight": weight[None], "bias": bias[None]})
        heads.append(head.eval())
    return replace(
        trained,
        main=replace(trained.main, network=network.eval()),
        submodels=replace(trained.submodels, networks=heads),
    )


def features_of(trained: Trained, paths: list[Path], graphs: Graphs | None = None) -> StageFeatures:
    """Return the features of both stages about pictures, from the cache, or by the given graphs."""
    main = main_features(trained.main, paths, graphs)
    return StageFeatures(main, head_features(trained.submodels, paths, main, graphs))


def head_recipes(plan: ExportPlan, trained: Trained) -> HeadRecipes:
    """Return how the heads of an export's runs were trained.

    Raises
    ------
    CanonistiaError
        A network was trained on these pictures itself, so that no head on it is without their influence.
    """
    if plan.checkpoint != "last":
        raise CanonistiaError(
            f"--checkpoint {plan.checkpoint} chooses an epoch, and --cross-fit trains heads anew for all epochs; leave "
            "one of them out"
        )
    if trained.submodels.trunk is None:
        raise CanonistiaError(
            f"the submodels of {plan.subs} have networks of their own, and --cross-fit trains heads on a shared trunk; "
            "leave --cross-fit out, or train submodels without --own-networks"
        )
    main = read_config(plan.main_run)
    trunk = plan.subs / TRUNK_CONFIG
    for run, config in ((plan.main_run, main), (trunk, json.loads(trunk.read_bytes()) if trunk.exists() else {})):
        if config.get("unfreeze", "head") != "head" or config.get("start") or config.get("averaged"):
            raise CanonistiaError(
                f"{run} is of a network that was fine-tuned, and --cross-fit trains heads on frozen networks alone; "
                "leave --cross-fit out"
            )
    submodel = read_config(class_run(plan.subs, trained.data.classes[0]))
    return HeadRecipes(_recipe(main), _recipe(submodel), submodel["negatives"])


def _recipe(config: Mapping[str, Any]) -> Recipe:
    return Recipe(**{field.name: config[field.name] for field in fields(Recipe) if field.name in config})


def _heads(features: StageFeatures, targets: np.ndarray, weights: np.ndarray, recipes: HeadRecipes) -> Heads:
    weights = weights / weights.mean()
    out_of_fold = cross_fitted(features.main.numpy(), targets)
    return Heads(
        main_head(features.main, targets, weights, recipes.main),
        submodel_heads(features.submodels, targets, weights, out_of_fold, recipes.negatives, recipes.submodels),
        fit_distances(features.main.numpy(), targets),
    )


def _mean(heads: Sequence[nn.Linear]) -> nn.Linear:
    mean = nn.Linear(heads[0].in_features, heads[0].out_features)
    states = [head.state_dict() for head in heads]
    mean.load_state_dict({name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]})
    return mean.eval()
