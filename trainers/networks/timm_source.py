"""timm's models, and those on the Hugging Face hub that it reads: names, specifications, networks without a head."""

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
from trainers.networks.weights import Weights, load_weights

HUB = "hf-hub:"


def names() -> list[str]:
    """Return the names of all models, without their library's."""
    return timm.list_models()


def is_known(name: str) -> bool:
    """Return whether timm can build a model: by its name, with or without its weights' tag, or from the hub."""
    return name.startswith(HUB) or timm.is_model(name)


def spec(name: str) -> BackboneSpec:
    """Return what a model expects, from its weights' configuration.

    Raises
    ------
    CanonistiaError
        A hub's model cannot be read, or does not take colour pictures.
    """
    config = _config(name)
    channels, size, _ = config["input_size"]
    if channels != 3:
        raise CanonistiaError(f"{name} takes pictures of {channels} channels; expected a backbone for colour, 3")
    interpolation: Interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
    return BackboneSpec(name, size, interpolation, tuple(config["mean"]), tuple(config["std"]), config["crop_pct"])


def parameters(name: str) -> int:
    """Return the number of a model's parameters, its head among them."""
    with torch.device("meta"):
        return sum(value.numel() for value in timm.create_model(name, pretrained=False).parameters())


def weights_are_here(name: str) -> bool:
    """Return whether the pretrained weights are in the library's cache."""
    config = _config(name)
    url = config.get("url")
    if url and Path(get_dir(), "checkpoints", os.path.basename(url)).exists():
        return True
    hub: str = config.get("hf_hub_id") or ""
    files = (config.get("hf_hub_filename") or "model.safetensors", "pytorch_model.bin")
    return bool(hub) and any(isinstance(try_to_load_from_cache(hub, file), str) for file in files)


def build(
    name: str, size: int, pretrained: bool, weights: Weights | None, by_position: Weights | None = None
) -> FeatureExtractor:
    """Return a model without its head, for pictures of one side.

    ``by_position`` are weights that another implementation named.
    """
    config = _config(name)
    options: dict[str, Any] = {"img_size": size} if config.get("fixed_input_size") else {}
    network: Any = fetched(name, lambda: timm.create_model(name, pretrained=pretrained and weights is None, **options))
    if by_position is not None:
        load_weights(network, by_position, f"weights for {name}", by_position=True)
    elif weights is not None:
        head = config.get("classifier") or ()
        load_weights(network, weights, f"weights for {name}", but=(head,) if isinstance(head, str) else tuple(head))
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


def _config(name: str) -> dict[str, Any]:
    if name.startswith(HUB):
        config, _, _ = fetched(name, lambda: load_model_config_from_hf(name.removeprefix(HUB)))
        defaults = {"interpolation": "bicubic", "crop_pct": 0.9}
        return {**defaults, **config, "hf_hub_id": name.removeprefix(HUB)}
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise CanonistiaError(f"timm says nothing of how {name} sees; choose one of 'canonistia backbones'")
    return config.to_dict()
