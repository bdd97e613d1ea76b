"""Preprocessing: the one function from a decoded picture to a model's input."""

from typing import Annotated, Literal

import msgspec
import numpy as np
from PIL import Image

Interpolation = Literal["bilinear", "bicubic"]
ResizeRule = Literal["squash", "crop"]
Colour = Literal["rgb", "grey"]

_RESAMPLING: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


_LEAST_SIZE = 704  # pixels


class PreprocessSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a picture becomes a model's input; a part of the bundle."""

    size: Annotated[int, msgspec.Meta(ge=16, le=2048)]  # width and height of the model's input, in pixels
    resize: ResizeRule = "squash"  # squash: the whole picture; crop: its central square
    interpolation: Interpolation = "bicubic"
    colour: Colour = "rgb"  # grey: colour pictures are converted to grey, as the training pictures were
    crop: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0  # of the crop's size to the shorter side


def preprocess(picture: Image.Image, spec: PreprocessSpec) -> np.ndarray:
    """Return uint8 pixels ``(size, size, 3)`` of a picture from :func:`cascade.images.decoding.decode`.

    Pillow's antialiased filters resize in 8 bits, before grey is repeated over three channels: a grey file and the
    same picture saved in colour give the same bytes.
    """
    if spec.colour == "grey":
        picture = picture.convert("L")
    resized = picture.resize((spec.size, spec.size), _RESAMPLING[spec.interpolation], box=crop_box(picture.size, spec))
    if resized.mode == "L":
        resized = Image.merge("RGB", (resized, resized, resized))
    return np.asarray(resized)  # (size, size, 3)


def least_size(spec: PreprocessSpec) -> int:
    """Return the least size in pixels of a picture's shorter side when :func:`~cascade.images.decoding.decode` shrinks.

    The part that the model uses is then at least twice the model's input size. Models of up to 352 pixels that use the
    whole picture have the same least size, and so share one decoded picture.
    """
    size = _LEAST_SIZE
    while size * (spec.crop if spec.resize == "crop" else 1) < 2 * spec.size:
        size *= 2
    return size


def crop_box(size: tuple[int, int], spec: PreprocessSpec) -> tuple[float, float, float, float]:
    """Return the part of a picture of size (width, height) that the model uses: left, top, right, bottom, in pixels."""
    width, height = size
    if spec.resize == "squash":
        return (0.0, 0.0, float(width), float(height))
    side = min(width, height) * spec.crop
    left, top = (width - side) / 2, (height - side) / 2
    return (left, top, left + side, top + side)
