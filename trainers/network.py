"""The network that is trained and exported: pixels in, logits out."""

from pathlib import Path

import torch
from torch import nn

from cascade.errors import CanonistiaError
from trainers.backbones import Backbone, backbone_spec, build_backbone


class Classifier(nn.Module):
    """A backbone with a linear head. Scaling and normalisation are part of it, so they are in the exported graph.

    Input is uint8 pixels (N, H, W, 3), as :func:`cascade.preprocess.preprocess` makes them. With ``flip`` a picture
    and its mirror image are both looked at, outside of training, which costs two passes.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, backbone: Backbone, backbone_name: str, outputs: int, dropout: float, flip: bool = False
    ) -> None:
        super().__init__()
        spec = backbone_spec(backbone_name)
        self.backbone = backbone
        self.backbone_name = backbone_name
        self.flip = flip
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.features, outputs)
        # In pixel units: (pixel / 255 - mean) / std is (pixel - 255 mean) / (255 std).
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255, persistent=False)

    def feature_map(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the backbone's output, (N, features, h, w)."""
        x = pixels.permute(0, 3, 1, 2).to(self.mean.dtype)  # (N, 3, H, W), channels last in memory
        x = (x - self.mean) / self.std
        if self.flip and not self.training:
            return (self.backbone(x) + self.backbone(x.flip(3)).flip(3)) / 2
        return self.backbone(x)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the pooled features, (N, features)."""
        return self.feature_map(pixels).mean(dim=(2, 3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits, (N, outputs)."""
        return self.head(self.dropout(self.features(pixels)))


def build_classifier(
    backbone: str, outputs: int, dropout: float, pretrained: bool, weights: Path | None = None, flip: bool = False
) -> Classifier:
    """Return a classifier with a fresh head."""
    return Classifier(build_backbone(backbone, pretrained, weights), backbone, outputs, dropout, flip)


class Freezing:
    """Which stages of a classifier are trained: ``head``, ``last-N`` (stages of the backbone) or ``all``."""

    def __init__(self, unfreeze: str, stages: int) -> None:
        self.frozen = frozen_stages(unfreeze, stages)
        self.whole = self.frozen == stages

    def apply(self, network: Classifier) -> None:
        """Freeze the parameters of the frozen stages."""
        for stage in network.backbone.stages[: self.frozen]:
            stage.requires_grad_(False)

    def train_mode(self, network: Classifier) -> None:
        """Set training mode, with the frozen stages' batch-norm statistics left as they are."""
        network.train()
        for stage in network.backbone.stages[: self.frozen]:
            stage.eval()


def frozen_stages(unfreeze: str, stages: int) -> int:
    """Return how many of a backbone's first stages stay frozen.

    Raises
    ------
    CanonistiaError
        The text is none of ``head``, ``all``, ``last-1`` ... ``last-<stages>``.
    """
    if unfreeze == "head":
        return stages
    if unfreeze == "all":
        return 0
    number = unfreeze.removeprefix("last-")
    if number == unfreeze or not number.isdigit() or not 1 <= int(number) <= stages:
        raise CanonistiaError(f"unfreeze is '{unfreeze}'; expected head, all, or last-1 to last-{stages}")
    return stages - int(number)
