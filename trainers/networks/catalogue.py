"""The catalogue of backbones: their parameters, their native size, and whether their weights are on this machine."""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from cascade.errors import CanonistiaError
from trainers.networks.sources import backbone_names, source_of
from trainers.networks.weights import Availability


@dataclass(frozen=True)
class Entry:
    """One backbone; ``size`` is its native image size in pixels, ``parameters`` includes its ImageNet head."""

    name: str
    parameters: int
    size: int
    weights_here: bool
    weights: Availability


def matching(pattern: str | None) -> list[str]:
    """Return the names that contain a text or match a pattern with ``*``; without one, all that have no LIBRARY/.

    Raises
    ------
    CanonistiaError
        No backbone has such a name.
    """
    names = backbone_names()
    if pattern is None:
        return [name for name in names if "/" not in name]
    wished = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = fnmatch.filter(names, wished)
    if not found:
        raise CanonistiaError(f"no backbone is named like '{pattern}'; 'canonistia backbones \"timm/*\"' lists most")
    return found


def entries(names: list[str]) -> Iterator[Entry]:
    """Yield what is known of backbones, one by one: to count parameters a network may be built."""
    for name in names:
        source = source_of(name)
        weights = source.availability(name)
        yield Entry(name, source.parameters(name), source.spec(name).size, weights == "here", weights)
