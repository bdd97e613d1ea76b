"""The answers that a bundle's rules are fitted on: of held-out pictures, or of all pictures by cross-fitting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cascade.images.folders import LabelledPicture
from cascade.progress import track
from export.bundles.cross_fit import (
    METHOD,
    CrossFitted,
    Pictures,
    StageFeatures,
    cross_fit,
    features_of,
    head_recipes,
    with_mean_heads,
)
from export.bundles.trained import Graphs, Trained, main_features, stage_logits
from export.fitting.both import pairs_to_fit, pairs_within
from export.fitting.measure import EPOCH_NOTE
from export.fitting.shifted_pictures import shifted_pictures
from export.fitting.stage_logits import ComposedLogits, StageLogits, check_class_counts
from export.graphs.another_class import EvidenceByHeads
from export.graphs.distance import ClassDistances, fit_distances
from export.plan import ExportPlan
from trainers.data.composed import Pair, parents_of
from trainers.data.fingerprints import fingerprint, same_picture_groups
from trainers.features.made_pictures import composed_pictures

# From files, each made of one or two of the pictures, and the indices (N,) of the first of them, to logits (N, K).
_Answer = Callable[[list[Path], np.ndarray], StageLogits]


@dataclass(frozen=True)
class Served:
    """A cascade as it will be served; where it is cross-fitted, with the heads of each fold."""

    trained: Trained
    distances: ClassDistances
    crossed: CrossFitted | None = None


@dataclass(frozen=True)
class Answers:
    """The logits that rules are fitted on and judged by, of networks or heads that were not trained on the pictures.

    The pictures are of ``split``; ``method`` says how the logits were made. ``reference`` are PyTorch's logits of what
    is served, which the bundle must give again for the pictures at ``paths``.
    """

    logits: StageLogits
    split: str
    seen_in_training: int
    method: str
    paths: list[Path]
    reference: StageLogits


def served_cascade(plan: ExportPlan, trained: Trained) -> Served:
    """Return what an export serves: the trained runs, or with ``cross_fit`` the means of heads trained in folds.

    Raises
    ------
    CanonistiaError
        A class has too few pictures for rules, or the runs cannot be cross-fitted.
    """
    data = trained.data
    if not plan.cross_fit:
        check_class_counts(data.targets(data.validation), data.classes, "the validation split")
        seen = main_features(trained.main, _paths(data.training))
        return Served(trained, fit_distances(seen.numpy(), data.targets(data.training)))
    recipes = head_recipes(plan, trained)
    pictures = (*data.training, *data.validation)
    prints = [fingerprint(path) for path in track(_paths(pictures), "looking for copies of pictures")]
    weights = np.array([picture.weight for picture in pictures])
    known = Pictures(data.targets(pictures), weights, np.array(same_picture_groups(prints)))
    features = _known_features(trained)
    crossed = cross_fit(features, known, recipes, plan.seed)
    return Served(with_mean_heads(trained, crossed), fit_distances(features.main.numpy(), known.targets), crossed)


def answers(plan: ExportPlan, served: Served, graphs: Graphs) -> Answers:
    """Return the answers about held-out pictures, or about all of a cascade that is cross-fitted."""
    data = served.trained.data
    paths, targets = _paths(data.validation), data.targets(data.validation)
    reference = stage_logits(served.trained, served.distances, paths, targets)
    if served.crossed:
        logits = _cross_fitted_logits(plan, served.trained, served.crossed, graphs)
        return Answers(logits, "training", 0, METHOD, paths, reference)

    def answer(files: list[Path], origins: np.ndarray) -> StageLogits:
        return stage_logits(served.trained, served.distances, files, targets[origins], graphs)

    logits = _with_copies(reference, paths, pairs_to_fit(targets, plan.seed), served.trained.least_size, answer)
    note = " No network was trained on these pictures." + (EPOCH_NOTE if plan.checkpoint == "best" else "")
    return Answers(logits, "validation", data.seen_in_training, note, paths, reference)


def _cross_fitted_logits(plan: ExportPlan, trained: Trained, crossed: CrossFitted, graphs: Graphs) -> StageLogits:
    pictures = (*trained.data.training, *trained.data.validation)
    paths, targets = _paths(pictures), trained.data.targets(pictures)
    main_heads = [heads.main for heads in crossed.heads]
    evidence = EvidenceByHeads(trained.main.network, main_heads, trained.main.sidecar.preprocess)

    def answer(files: list[Path], origins: np.ndarray) -> StageLogits:
        fold = crossed.fold[origins]
        logits = crossed.logits(features_of(trained, files, graphs), targets[origins], fold)
        return replace(logits, another=evidence(files, fold))

    logits = crossed.logits(_known_features(trained), targets, crossed.fold)
    logits = replace(logits, another=evidence(paths, crossed.fold))
    pairs = pairs_within(crossed.fold, targets, plan.seed)
    return _with_copies(logits, paths, pairs, trained.least_size, answer)


def _with_copies(
    logits: StageLogits, paths: list[Path], pairs: Sequence[Pair], least_size: int, answer: _Answer
) -> StageLogits:
    """Return the logits of pictures with those of their shifted copies and of pairs of them."""
    with shifted_pictures(paths, least_size) as copies:
        shifted = answer(copies, np.arange(len(paths)))
    parents = parents_of(pairs)
    with composed_pictures(paths, pairs, least_size) as files:
        composed = answer(files, parents[:, 0])
    return replace(logits, shifted=shifted, composed=ComposedLogits(composed, parents))


def _known_features(trained: Trained) -> StageFeatures:
    """Return the features of the training pictures and then the validation pictures: training has cached both."""
    data = trained.data
    parts = [features_of(trained, _paths(part)) for part in (data.training, data.validation)]
    main, submodels = (torch.cat([getattr(part, name) for part in parts]) for name in ("main", "submodels"))
    return StageFeatures(main, submodels)


def _paths(pictures: Sequence[LabelledPicture]) -> list[Path]:
    return [picture.path for picture in pictures]
