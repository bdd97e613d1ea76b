"""The trained runs of both stages, and what they answer about pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cascade.errors import CanonistiaError
from cascade.images.preprocess import PreprocessSpec, least_size
from export.fitting.stage_logits import StageLogits
from export.graphs.another_class import evidence_of_another_class
from export.graphs.distance import ClassDistances, distances
from export.plan import ExportPlan
from trainers.data.dataset import DataSet, load_data_set
from trainers.features.cache import cached_features, features_sha256
from trainers.features.graph import RuntimeFeatures
from trainers.networks.classifier import Classifier
from trainers.runs.folder import TrainedRun, check_same_data, load_run
from trainers.runs.submodels import Submodels, load_submodels


@dataclass(frozen=True)
class Trained:
    """The trained runs of both stages and the data set that they were trained on."""

    main: TrainedRun
    submodels: Submodels
    data: DataSet

    @property
    def least_size(self) -> int:
        """Return the shorter side in pixels that the networks need of a picture, whichever needs most."""
        return max(map(least_size, (self.main.sidecar.preprocess, self.submodels.common.preprocess)))


@dataclass(frozen=True)
class Graphs:
    """The networks that take pixels in ONNX Runtime: the main model's, and the shared trunk's if there is one.

    ``maps`` are the main model's activation maps, where it has some.
    """

    main: RuntimeFeatures
    maps: RuntimeFeatures | None
    trunk: RuntimeFeatures | None


def load_trained(plan: ExportPlan) -> Trained:
    """Return the runs of an export and their data set, once they are known to belong together.

    Raises
    ------
    CanonistiaError
        The runs do not belong together or to the data set, or one of them is not finished.
    """
    main = load_run(plan.main_run, plan.checkpoint)
    submodels = load_submodels(plan.subs)
    data = load_data_set(plan.data, main.sidecar.seed)
    check_same_data(plan.data, data, main)
    if submodels.common.data_fingerprint != data.fingerprint:
        raise CanonistiaError(
            f"{plan.subs} was trained on another data set than {plan.main_run}, expected the same; train it again"
        )
    if submodels.common.classes != list(data.classes):
        raise CanonistiaError(
            f"{plan.subs} is for the classes {', '.join(submodels.common.classes)}, and the data set has "
            f"{', '.join(data.classes)}; there must be one submodel per class: run train-sub again"
        )
    needed = submodels.common.main_features
    if needed and needed.sha256 != features_sha256(main.network, main.sidecar.preprocess):
        raise CanonistiaError(
            f"the heads in {plan.subs} read the features of another main model than the {plan.checkpoint} checkpoint "
            f"of {plan.main_run}; export the main model that they were trained with, or run train-sub again"
        )
    return Trained(main, submodels, data)


def main_features(
    main: TrainedRun, paths: list[Path], graphs: Graphs | None = None, by_pytorch: bool = False
) -> torch.Tensor:
    """Return the main network's features of pictures (N, D), from the cache, or by the given graphs.

    ``by_pytorch`` asks for those of PyTorch alone, which the exported graphs are compared with.
    """
    graph = graphs.main if graphs else None
    return cached_features(main.network, paths, main.sidecar.preprocess, "cpu", by_pytorch=by_pytorch, graph=graph)


def head_features(
    submodels: Submodels,
    paths: list[Path],
    main: torch.Tensor,
    graphs: Graphs | None = None,
    by_pytorch: bool = False,
) -> torch.Tensor:
    """Return what heads on a shared trunk read of pictures (N, E), given the main network's features (N, D)."""
    assert submodels.trunk is not None
    spec, graph = submodels.common.preprocess, graphs.trunk if graphs else None
    features = cached_features(submodels.trunk, paths, spec, "cpu", by_pytorch=by_pytorch, graph=graph)
    return torch.cat([features, main], dim=1) if submodels.common.main_features else features


def stage_logits(
    trained: Trained, fitted: ClassDistances, paths: list[Path], targets: np.ndarray, graphs: Graphs | None = None
) -> StageLogits:
    """Return the logits of both stages for pictures of the given classes (N,), by PyTorch alone without graphs."""
    features = main_features(trained.main, paths, graphs, by_pytorch=graphs is None)
    with torch.inference_mode():
        main = trained.main.network.head(features).numpy()  # (N, K)
    submodels = _submodel_logits(trained.submodels, paths, features, graphs)
    spec, maps = trained.main.sidecar.preprocess, graphs.maps if graphs else None
    another = evidence_of_another_class(trained.main.network, paths, spec, maps)
    return StageLogits(main, distances(fitted, features), submodels, targets, another)


def _submodel_logits(
    submodels: Submodels, paths: list[Path], main_features: torch.Tensor, graphs: Graphs | None
) -> np.ndarray:
    by_pytorch = graphs is None
    if submodels.trunk:
        features = head_features(submodels, paths, main_features, graphs, by_pytorch)
        with torch.inference_mode():
            return torch.cat([head(features) for head in submodels.networks], dim=1).numpy()  # (N, K)
    spec = submodels.common.preprocess
    networks = [network for network in submodels.networks if isinstance(network, Classifier)]
    columns = [_logits(network, paths, spec, by_pytorch) for network in networks]
    return np.concatenate(columns, axis=1)


def _logits(network: Classifier, paths: list[Path], spec: PreprocessSpec, by_pytorch: bool) -> np.ndarray:
    features = cached_features(network, paths, spec, "cpu", by_pytorch=by_pytorch)  # (N, D)
    with torch.inference_mode():
        return network.head(features).numpy()  # (N, outputs)
