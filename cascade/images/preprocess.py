"""Preprocessing: the one function from a decoded picture to the pixels that a model sees."""

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


_LEAST_SIDE = 704


class PreprocessSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a picture becomes pixels; it travels in the bundle."""

    size: Annotated[int, msgspec.Meta(ge=16, le=2048)]  # side of the square that the model sees, in pixels
    resize: ResizeRule = "squash"  # squash: the whole picture; crop: its central square
    interpolation: Interpolation = "bicubic"
    colour: Colour = "rgb"  # grey: a colour photo is turned grey, as the training pictures were
    crop: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0  # with crop: the square's share of the shorter side


def preprocess(picture: Image.Image, spec: PreprocessSpec) -> np.ndarray:
    """Return uint8 pixels ``(size, size, 3)`` of a picture from :func:`cascade.images.decoding.decode`.

    Resizing happens in 8 bits with Pillow's antialiased filters, before grey is repeated over three channels,
    so a grey file and the same picture saved as colour give the same bytes.
    """
    if spec.colour == "grey":
        picture = picture.convert("L")
    resized = picture.resize((spec.size, spec.size), _RESAMPLING[spec.interpolation], box=crop_box(picture.size, spec))
    if resized.mode == "L":
        resized = Image.merge("RGB", (resized, resized, resized))
    return np.asarray(resized)  # (size, size, 3)


def least_side(spec: PreprocessSpec) -> int:
    """Return how small the shorter side of a picture may be decoded (``cascade.images.decoding.decode``) for a model.

    What the model sees of it then has at least twice the model's side. Models of up to 352 pixels that see all of it
    have the same, and so see one decoded picture.
    """
    side = _LEAST_SIDE
    while side * (spec.crop if spec.resize == "crop" else 1) < 2 * spec.size:
        side *= 2
    return side


def crop_box(size: tuple[int, int], spec: PreprocessSpec) -> tuple[float, float, float, float]:
    """Return what the model sees of a picture of size (width, height): left, top, right, bottom, in pixels."""
    width, height = size
    if spec.resize == "squash":
        return (0.0, 0.0, float(width), float(height))
    side = min(width, height) * spec.crop
    left, top = (width - side) / 2, (height - side) / 2
    return (left, top, left + side, top + side)
