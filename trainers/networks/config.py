"""The choice of a network: which backbone, its weights, and the pictures that it takes."""

from dataclasses import dataclass
from pathlib import Path

from cascade.images.preprocess import Colour, ResizeRule


@dataclass(frozen=True)
class NetworkConfig:
    """Which backbone a network has and how it takes pictures.

    ``size`` is the image size in pixels, by default the backbone's native size; ``colour`` is by default grey when all
    pictures of the data set are. With ``flip`` the mirror image of each picture is classified, too. ``pretrained`` is
    False for random weights, and for a network whose trained weights are loaded next. ``start`` is a finished run that
    the training starts from, its head included, and ``teachers`` are finished runs whose answers it follows, too.
    """

    backbone: str
    weights: Path | None = None  # a file with the backbone's weights, instead of its source's
    size: int | None = None
    resize: ResizeRule = "squash"  # crop takes the fraction that the backbone's weights were measured on
    colour: Colour | None = None
    flip: bool = False
    pretrained: bool = True
    start: Path | None = None
    teachers: tuple[Path, ...] = ()
