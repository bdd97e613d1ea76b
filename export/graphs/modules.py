"""Graphs: trained networks, submodels with their calibration inside, to be written as ONNX files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from export.graphs.distance import ClassDistances, DistanceGraph
from trainers.networks.classifier import Classifier, activation_maps


class MainGraph(nn.Module):
    """uint8 pixels (N, H, W, 3) to the outputs that ``outputs`` names.

    The outputs are logits (N, K), distance (N,), pooled features (N, M) and, if the backbone has a feature map,
    activation maps (N, K, h, w). A runtime computes only the outputs that it is asked for.
    """

    def __init__(self, network: Classifier, fitted: ClassDistances) -> None:
        super().__init__()
        self.network = network
        self.distance = DistanceGraph(fitted)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs."""
        maps = ["activation_maps"] * self.network.backbone.spatial
        return ("logits", "distance", "features", *maps)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs; the logits are the means of the activation maps."""
        output = self.network.backbone_output(pixels)  # (N, D, h, w) or (N, D)
        features = output.mean(dim=(2, 3)) if self.network.backbone.spatial else output
        logits = self.network.head(features)
        outputs = (logits, self.distance(features), features)
        return (*outputs, activation_maps(self.network, output)) if self.network.backbone.spatial else outputs


class SubmodelGraph(nn.Module):
    """Features (N, D), or pixels if the submodel has its own network, to calibrated probability (N,) and logit (N,).

    Slope and intercept of the calibration are tensors of the graph with these names.
    """

    slope: torch.Tensor
    intercept: torch.Tensor

    def __init__(self, network: nn.Module, slope: float, intercept: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("slope", torch.tensor(float(slope)))
        self.register_buffer("intercept", torch.tensor(float(intercept)))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probability and logit."""
        logit = self.network(inputs)[:, 0]
        return torch.sigmoid(logit * self.slope + self.intercept), logit


def set_scalars(path: Path, values: Mapping[str, float]) -> None:
    """Set scalar tensors of a graph file by name; each name must exist."""
    write_like(path, path, {name: np.array(value, dtype=np.float32) for name, value in values.items()})


def write_like(template: Path, path: Path, values: Mapping[str, np.ndarray]) -> None:
    """Write a copy of a graph file in which the named tensors have other values."""
    model = onnx.load(template)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, value in values.items():
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(value, name))
    onnx.save(model, path)
