"""timm's models, named timm/NAME, and those of the Hugging Face hub that timm reads, named hf-hub:ORG/NAME."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.models import load_model_config_from_hf
from torch import nn
from torch.hub import get_dir

from cascade.errors import CanonistiaError
from cascade.images.preprocess import Interpolation
from trainers.networks.feature_extractor import BackboneSpec, FeatureExtractor, fetched, is_mean_of, probe
from trainers.networks.weights import Availability, Weights, load_weights

PREFIX = "timm/"
HUB = "hf-hub:"


def names() -> list[str]:
    """Return the names of timm's models; those of the hub are not listed."""
    return [PREFIX + name for name in timm.list_models()]


def matches(name: str) -> bool:
    """Return whether timm can build a model: by its name, with or without its weights' tag, or from the hub."""
    inside = _inside(name)
    return inside.startswith(HUB) or (name.startswith(PREFIX) and timm.is_model(inside))


def spec(name: str) -> BackboneSpec:
    """Return what a model expects, from its weights' configuration.

    Raises
    ------
    CanonistiaError
        A hub's model cannot be read, or does not take colour pictures.
    """
    config = _config(_inside(name))
    channels, size, _ = config["input_size"]
    if channels != 3:
        raise CanonistiaError(
            f"{_inside(name)} takes pictures of {channels} channels, expected 3; choose a backbone for colour"
        )
    interpolation: Interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
    return BackboneSpec(name, size, interpolation, tuple(config["mean"]), tuple(config["std"]), config["crop_pct"])


def parameters(name: str) -> int:
    """Return the number of a model's parameters, including those of its head; no memory is taken for them."""
    with torch.device("meta"):
        return sum(value.numel() for value in timm.create_model(_inside(name), pretrained=False).parameters())


def availability(name: str) -> Availability:
    """Return where the pretrained weights are: in the library's cache, to be fetched, or nowhere."""
    config = _config(_inside(name))
    url = config.get("url")
    if url and Path(get_dir(), "checkpoints", os.path.basename(url)).exists():
        return "here"
    hub: str = config.get("hf_hub_id") or ""
    files = (config.get("hf_hub_filename") or "model.safetensors", "pytorch_model.bin")
    if hub and any(isinstance(try_to_load_from_cache(hub, file), str) for file in files):
        return "here"
    return "to fetch" if url or hub else "none"


def build(
    name: str, size: int, pretrained: bool, weights: Weights | None, by_position: bool = False
) -> FeatureExtractor:
    """Return a model without its head, for an image size in pixels.

    ``by_position`` loads ``weights``, including those of the head, by their order: another implementation named them.
    """
    inside = _inside(name)
    config = _config(inside)
    options: dict[str, Any] = {"img_size": size} if config.get("fixed_input_size") else {}
    fetch = pretrained and weights is None
    network: Any = fetched(inside, lambda: timm.create_model(inside, pretrained=fetch, **options))
    if weights is not None:
        head = () if by_position else config.get("classifier") or ()
        but = (head,) if isinstance(head, str) else tuple(head)
        load_weights(network, weights, f"weights for {inside}", by_position, but)
    network.reset_classifier(0)
    return _feature_extractor(network, size)


class _FeatureMap(nn.Module):
    """A model's feature map, with the channels first."""

    def __init__(self, network: Any, order: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.order = tuple(order)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the feature map, (N, C, h, w)."""
        return self.network.forward_features(x).permute(self.order)


def _feature_extractor(network: Any, size: int) -> FeatureExtractor:
    network.eval()
    with torch.inference_mode():
        maps, features = network.forward_features(probe(size)), network(probe(size))
    for order in ((0, 1, 2, 3), (0, 3, 1, 2)):  # channels first, or last
        if isinstance(maps, torch.Tensor) and maps.ndim == 4 and is_mean_of(features, maps.permute(order)):
            return FeatureExtractor(_FeatureMap(network, order), spatial=True)
    return FeatureExtractor(network, spatial=False)


def _inside(name: str) -> str:
    """Return the name by which timm knows a model."""
    return name.removeprefix(PREFIX)


def _config(name: str) -> dict[str, Any]:
    if name.startswith(HUB):
        config, _, _ = fetched(name, lambda: load_model_config_from_hf(name.removeprefix(HUB)))
        defaults = {"interpolation": "bicubic", "crop_pct": 0.9}
        return {**defaults, **config, "hf_hub_id": name.removeprefix(HUB)}
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise CanonistiaError(f"timm has no configuration for {name}; choose a name that 'canonistia backbones' lists")
    return config.to_dict()
