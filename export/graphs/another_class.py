"""The evidence of another class in a part of a picture, from a trained network, before there is a bundle."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cascade.images.preprocess import PreprocessSpec
from cascade.rules.another_class import another_class
from trainers.features.cache import compute_features
from trainers.features.graph import RuntimeFeatures, temporary_graph
from trainers.networks.classifier import Classifier, FeatureNetwork, activation_maps


class ActivationMaps(FeatureNetwork):
    """uint8 pixels (N, H, W, 3) to activation maps (N, K, h, w)."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network
        self.backbone_name = network.backbone_name

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the maps."""
        return activation_maps(self.network, self.network.backbone_output(pixels))


def evidence_of_another_class(
    network: Classifier, paths: Sequence[Path], spec: PreprocessSpec, graph: RuntimeFeatures | None
) -> np.ndarray | None:
    """Return the evidence about each picture (N,); None where the backbone has no spatial feature map.

    The maps are those of ``graph``, or without one of PyTorch alone; they are not cached.
    """
    if not network.backbone.spatial:
        return None
    library = None if graph else "pytorch"
    maps = compute_features(ActivationMaps(network), paths, spec, "cpu", library=library, graph=graph)  # (N, K, h, w)
    return another_class(maps.numpy())


class EvidenceByHeads:
    """The evidence of another class by several heads on one backbone, each of K outputs, in a graph written once.

    Parameters
    ----------
    network
        The backbone, with any head.
    """

    def __init__(self, network: Classifier, heads: Sequence[nn.Linear], spec: PreprocessSpec) -> None:
        joined = copy.deepcopy(network)
        joined.head = nn.Linear(heads[0].in_features, sum(head.out_features for head in heads))
        weights = torch.cat([head.weight.detach() for head in heads])
        joined.head.load_state_dict({"weight": weights, "bias": torch.cat([head.bias.detach() for head in heads])})
        self._maps, self._heads, self._spec = ActivationMaps(joined), len(heads), spec
        self._graph = temporary_graph(self._maps, spec.size) if network.backbone.spatial else None

    def __call__(self, paths: Sequence[Path], chosen: np.ndarray) -> np.ndarray | None:
        """Return the evidence about each picture (N,), by the head of the number that is ``chosen`` for it (N,).

        None where the backbone has no spatial feature map.
        """
        if not self._graph:
            return None
        maps = compute_features(self._maps, paths, self._spec, "cpu", graph=self._graph).numpy()
        count, outputs, height, width = maps.shape
        each = maps.reshape(count, self._heads, outputs // self._heads, height, width)
        return another_class(each[np.arange(count), chosen])
