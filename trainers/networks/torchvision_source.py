"""Torchvision's classification models: names, what their weights expect, and the network before the head."""

import inspect
import os
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn
from torch.hub import get_dir
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from cascade.images.preprocess import Interpolation
from trainers.networks.feature_extractor import BackboneSpec, FeatureExtractor, fetched, is_mean_of, probe
from trainers.networks.weights import Availability, Weights, load_weights

_TAIL = 8  # the most steps from the feature map to the head: pooling, flattening, dropout and the like


def names() -> list[str]:
    """Return the names of all models."""
    return models.list_models(module=models)


def matches(name: str) -> bool:
    """Return whether this is a model of torchvision."""
    return name in names()


def spec(name: str) -> BackboneSpec:
    """Return what a model expects, from its default weights' own transforms."""
    expected = _weights(name).transforms()
    (size,), (resized,) = expected.crop_size, expected.resize_size
    interpolation: Interpolation = "bicubic" if expected.interpolation.value == "bicubic" else "bilinear"
    return BackboneSpec(name, size, interpolation, tuple(expected.mean), tuple(expected.std), size / resized)


def parameters(name: str) -> int:
    """Return the number of a model's parameters, including those of its ImageNet head."""
    return _weights(name).meta["num_params"]


def availability(name: str) -> Availability:
    """Return whether the default weights are in the library's cache, or to be fetched."""
    here = Path(get_dir(), "checkpoints", os.path.basename(_weights(name).url)).exists()
    return "here" if here else "to fetch"


def build(name: str, size: int, pretrained: bool, weights: Weights | None) -> FeatureExtractor:
    """Return a model without its head, for an image size in pixels."""
    network = _network(name, size)
    steps = get_graph_node_names(network, suppress_diff_warning=True)  # of the forward pass: in training, in evaluation
    head = _head(network, steps[1])
    if weights is not None:
        load_weights(network, _resized(network, weights), f"weights for {name}", but=(head,))
    elif pretrained:
        state = fetched(name, lambda: _weights(name).get_state_dict(progress=True, check_hash=True))
        network.load_state_dict(_resized(network, state))
    last, spatial = _last_step(network, steps[1], head, size)
    before = steps[1].index(head) - steps[1].index(last)
    extractor = create_feature_extractor(
        network,
        train_return_nodes={steps[0][steps[0].index(head) - before]: "features"},
        eval_return_nodes={last: "features"},
        suppress_diff_warning=True,
    )
    return FeatureExtractor(_Extracted(extractor), spatial)


class _Extracted(nn.Module):
    """A feature extractor that returns its one output instead of a mapping."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the feature map (N, C, h, w), or the features (N, D)."""
        return self.extractor(x)["features"]


def _weights(name: str) -> Any:
    return models.get_model_weights(name).DEFAULT


def _network(name: str, size: int) -> nn.Module:
    # Inception and GoogLeNet were trained with another scaling than their weights' transforms: they convert it.
    wished = {"image_size": size, "input_size": (size, size), "transform_input": True, "init_weights": True}
    accepted = inspect.signature(get_type_hints(models.get_model_builder(name))["return"]).parameters
    return models.get_model(name, weights=None, **{key: value for key, value in wished.items() if key in accepted})


def _resized(network: nn.Module, state: Weights) -> Weights:
    if isinstance(network, VisionTransformer):
        return interpolate_embeddings(network.image_size, network.patch_size, dict(state))
    return state


def _head(network: nn.Module, steps: list[str]) -> str:
    """Return the name of the head: the last module with weights on the way to the output."""
    modules = dict(network.named_modules())
    return next(step for step in reversed(steps) if step in modules and any(True for _ in modules[step].parameters()))


def _last_step(network: nn.Module, steps: list[str], head: str, size: int) -> tuple[str, bool]:
    """Return the step to stop at, and whether it gives a feature map: else it is what the head reads."""
    position = steps.index(head)
    tail = steps[max(0, position - _TAIL) : position]
    values = create_feature_extractor(
        network, train_return_nodes={}, eval_return_nodes={step: step for step in tail}, suppress_diff_warning=True
    ).eval()
    with torch.inference_mode():
        given = values(probe(size))
    read = given[tail[-1]]
    for step in reversed(tail):  # from the end: what comes before may be changed in place
        if is_mean_of(read, given[step]):
            return step, True
    return tail[-1], read.ndim == 4 and read[0, 0].numel() > 1  # a head may read a map, and average its own answers
