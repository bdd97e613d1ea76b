"""The network that is trained and exported: pixels in, logits out."""

import torch
from torch import nn
from torch.nn import functional

from trainers.networks.backbones import Backbone, backbone_spec, build_backbone
from trainers.networks.config import NetworkConfig
from trainers.networks.feature_extractor import BackboneSpec


class FeatureNetwork(nn.Module):
    """A network that makes one vector of each picture, by the name of its backbone."""

    backbone_name: str

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the vectors (N, features) of pixels, uint8 (N, H, W, 3)."""
        raise NotImplementedError(f"{type(self).__name__} defines no features")


class Classifier(FeatureNetwork):
    """A backbone with a linear head. Scaling and normalisation are part of it, so they are in the exported graph.

    Input is uint8 pixels (N, H, W, 3), as :func:`cascade.images.preprocess.preprocess` makes them. With ``flip``,
    outside of training, the output is the mean over a picture and its mirror image, which costs two passes.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, backbone: Backbone, spec: BackboneSpec, outputs: int, dropout: float, flip: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.backbone_name = spec.name
        self.flip = flip
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.features, outputs)
        # In pixel units: (pixel / 255 - mean) / std is (pixel - 255 mean) / (255 std).
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255, persistent=False)

    def backbone_output(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the backbone's output: a feature map (N, features, h, w) when it is spatial, else (N, features)."""
        x = pixels.permute(0, 3, 1, 2).to(self.mean.dtype)  # (N, 3, H, W), channels last in memory
        x = (x - self.mean) / self.std
        if self.flip and not self.training:
            mirrored = self.backbone(x.flip(3))
            return (self.backbone(x) + (mirrored.flip(3) if self.backbone.spatial else mirrored)) / 2
        return self.backbone(x)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the pooled features, (N, features)."""
        output = self.backbone_output(pixels)
        return output.mean(dim=(2, 3)) if self.backbone.spatial else output

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, outputs)."""
        return self.head(self.dropout(self.features(pixels)))


def activation_maps(network: Classifier, maps: torch.Tensor) -> torch.Tensor:
    """Return each output's evidence over the picture (N, outputs, h, w), of a feature map (N, features, h, w).

    It is class activation mapping (Zhou et al., arXiv 1512.04150): the head at every position; its mean is the logits.
    """
    return functional.conv2d(maps, network.head.weight[:, :, None, None], network.head.bias)


def build_classifier(
    config: NetworkConfig, outputs: int, dropout: float = 0.0, spec: BackboneSpec | None = None
) -> Classifier:
    """Return a classifier with a fresh head.

    Parameters
    ----------
    spec
        The backbone's, where it is known already; it is looked up by default.

    Raises
    ------
    CanonistiaError
        The backbone is unknown, its weights cannot be fetched or read or do not fit, or the image size is too small.
    """
    spec = spec or backbone_spec(config.backbone)
    backbone = build_backbone(spec, config.pretrained, config.weights, config.size)
    return Classifier(backbone, spec, outputs, dropout, config.flip)
