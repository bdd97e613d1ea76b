"""What every source of backbones returns: a specification, and a network without its head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.error import URLError

import torch
from torch import nn

from cascade.errors import CanonistiaError
from cascade.images.preprocess import Interpolation

T = TypeVar("T")
Scaling = tuple[float, float, float]


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone expects, from its weights' metadata.

    ``size`` is its native image size in pixels, ``mean`` and ``std`` the scaling of [0, 1] channels, ``crop`` the
    fraction of the shorter side that its weights were measured on. ``parts`` are the networks of one that is named
    ``A+B``.
    """

    name: str
    size: int
    interpolation: Interpolation
    mean: Scaling
    std: Scaling
    crop: float = 1.0
    parts: tuple["BackboneSpec", ...] = ()


@dataclass(frozen=True)
class FeatureExtractor:
    """A network that gives a feature map (N, C, h, w) when ``spatial``, else features (N, D).

    The network is spatial only when the mean of the map over its positions is what the network's own head reads: the
    head's logits are then the mean of its logits at every position, and activation maps are exact.
    """

    network: nn.Module
    spatial: bool


def probe(size: int) -> torch.Tensor:
    """Return random pictures (2, 3, size, size), always the same; the global random state is left alone."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def is_mean_of(features: torch.Tensor, maps: object) -> bool:
    """Return whether features, (N, C) or (N, C, 1, 1), are the mean of maps (N, C, h, w) with two positions or more."""
    if not isinstance(maps, torch.Tensor) or maps.ndim != 4 or maps.shape[:2] != features.shape[:2]:
        return False
    if maps[0, 0].numel() == 1 or features.numel() != maps.shape[0] * maps.shape[1]:
        return False
    means = maps.mean(dim=(2, 3))
    return torch.allclose(features.reshape(means.shape), means, 1e-4, 1e-5)


def fetched(name: str, fetch: Callable[[], T]) -> T:
    """Return the weights of a backbone, which ``fetch`` downloads or finds in a cache.

    Raises
    ------
    CanonistiaError
        They are in no cache and cannot be downloaded.
    """
    try:
        return fetch()
    # The libraries report a machine without a network with any of these.
    except (URLError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise CanonistiaError(
            f"the weights of {name} could not be fetched ({reason}); connect this machine, give --weights FILE, or "
            "start from random weights with --no-pretrained"
        ) from error
