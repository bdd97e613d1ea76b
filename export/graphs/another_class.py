"""The evidence of another class in a part of a picture, from a trained network, before there is a bundle."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cascade.images.preprocess import PreprocessSpec
from cascade.rules.another_class import another_class
from trainers.features.cache import compute_features
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
    network: Classifier, paths: Sequence[Path], spec: PreprocessSpec, by_pytorch: bool
) -> np.ndarray | None:
    """Return the evidence about each picture (N,); None where the backbone has no spatial feature map.

    ``by_pytorch`` is that of :func:`trainers.features.cache.cached_features`; maps are not cached.
    """
    if not network.backbone.spatial:
        return None
    library = "pytorch" if by_pytorch else None
    maps = compute_features(ActivationMaps(network), paths, spec, "cpu", library=library)  # (N, K, h, w)
    return another_class(maps.numpy())
