"""What both libraries of networks give: a specification, and a network without its head."""

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

    ``size`` is the side in pixels, ``mean`` and ``std`` the scaling of [0, 1] channels, ``crop`` the share of the
    shorter side that its weights were measured on.
    """

    name: str
    size: int
    interpolation: Interpolation
    mean: Scaling
    std: Scaling
    crop: float = 1.0


@dataclass(frozen=True)
class FeatureExtractor:
    """A network that gives a feature map (N, C, h, w) when ``spatial``, else features (N, D).

    A map is only called one when its mean over the places is what the network's own head reads: the head's answer is
    then the mean of its answers at every place, and activation maps are exact.
    """

    network: nn.Module
    spatial: bool


def probe(size: int) -> torch.Tensor:
    """Return random pictures (2, 3, size, size), always the same and without a trace in the global random state."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def is_mean_of(features: torch.Tensor, maps: object) -> bool:
    """Return whether features, (N, C) or (N, C, 1, 1), are the mean of maps (N, C, h, w) over two places or more."""
    if not isinstance(maps, torch.Tensor) or maps.ndim != 4 or maps.shape[:2] != features.shape[:2]:
        return False
    if maps[0, 0].numel() == 1 or features.numel() != maps.shape[0] * maps.shape[1]:
        return False
    means = maps.mean(dim=(2, 3))
    return torch.allclose(features.reshape(means.shape), means, 1e-4, 1e-5)


def fetched(name: str, fetch: Callable[[], T]) -> T:
    """Return what ``fetch`` downloads or finds in a cache.

    Raises
    ------
    CanonistiaError
        It cannot be had.
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
