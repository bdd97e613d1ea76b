"""The sources of backbones, in the order in which they are asked for a name."""

import difflib
from typing import Protocol

from cascade.errors import CanonistiaError
from trainers.networks import lite_source, timm_source, torchvision_source
from trainers.networks.feature_extractor import BackboneSpec, FeatureExtractor
from trainers.networks.weights import Availability, Weights


class BackboneSource(Protocol):
    """A library of backbones; each is a module with these functions. All names are those that ``--backbone`` takes."""

    def names(self) -> list[str]:
        """Return the names of all backbones that can be listed."""

    def matches(self, name: str) -> bool:
        """Return whether this source can build a backbone of this name, listed or not."""

    def spec(self, name: str) -> BackboneSpec:
        """Return what a backbone expects."""

    def parameters(self, name: str) -> int:
        """Return the number of parameters, including those of the ImageNet head."""

    def availability(self, name: str) -> Availability:
        """Return where the pretrained weights are."""

    def build(self, name: str, size: int, pretrained: bool, weights: Weights | None) -> FeatureExtractor:
        """Return a network without its head, for an image size in pixels; ``weights`` replace the pretrained ones."""


SOURCES: tuple[BackboneSource, ...] = (lite_source, torchvision_source, timm_source)


def source_of(name: str) -> BackboneSource:
    """Return the first source that can build a backbone.

    Raises
    ------
    CanonistiaError
        No source can.
    """
    for source in SOURCES:
        if source.matches(name):
            return source
    close = difflib.get_close_matches(name, backbone_names(), n=3)
    likely = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise CanonistiaError(
        f"unknown backbone '{name}'{likely}; expected a name that 'canonistia backbones' lists, timm/NAME or "
        "hf-hub:ORG/NAME"
    )


def backbone_names() -> list[str]:
    """Return the names of all backbones that can be listed: those on the Hugging Face hub cannot."""
    return [name for source in SOURCES for name in source.names()]
