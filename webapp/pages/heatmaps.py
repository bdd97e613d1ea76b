"""Heatmaps: activation maps drawn over the picture, as evidence for a class.

The colours are made in OKLab (Ottosson 2020), a space where equal distances look equal: lightness rises evenly from
dark violet to light yellow, and the steps between neighbours are equal, so no edge appears that is not in the map.
The order shows in lightness alone, so people with colour blindness can read the maps too.
"""

import base64
import io
from functools import cache
from math import ceil, floor

import numpy as np
from PIL import Image

from cascade.images.preprocess import PreprocessSpec, crop_box

_OPACITY = (0.4, 0.8)  # of the colours, at no evidence and at the most evidence
_LEGEND = (256, 12)  # pixels

# OKLab to linear sRGB, by way of the cones' cube roots.
_TO_CONES = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.291485548]]
)
_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.707614701],
    ]
)


@cache
def colours() -> np.ndarray:
    """Return the colours of 256 steps of evidence, from none to the most, uint8 (256, 3)."""
    along = np.linspace(0, 1, 2048)
    hue = np.deg2rad(300 + 165 * along)  # violet, red, orange, yellow
    chroma = 0.12 + 0.04 * np.sin(np.pi * along)
    lab = np.column_stack([0.28 + 0.62 * along, chroma * np.cos(hue), chroma * np.sin(hue)])  # (2048, 3)
    walked = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(lab, axis=0), axis=1))])
    even = np.linspace(0, walked[-1], 256)
    lab = np.column_stack([np.interp(even, walked, channel) for channel in lab.T])  # (256, 3)
    linear = np.clip((lab @ _TO_CONES.T) ** 3 @ _TO_LINEAR.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)


def evidence(maps: np.ndarray) -> np.ndarray:
    """Return activation maps (M, h, w) as evidence in [0, 1], on one scale for all of them.

    Negative values, which are evidence against the class, count as none.
    """
    positive = np.maximum(maps, 0)
    return positive / max(float(positive.max()), np.finfo(np.float32).tiny)


def heat_picture(picture: Image.Image, evidence: np.ndarray, spec: PreprocessSpec) -> Image.Image:
    """Return the picture in grey, with the evidence (h, w) over the part that the model sees."""
    left, top, right, bottom = crop_box(picture.size, spec)
    left, top, right, bottom = floor(left), floor(top), ceil(right), ceil(bottom)
    smooth = Image.fromarray(evidence.astype(np.float32)).resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(smooth), 0, 1)  # (H, W)
    alpha = np.interp(strength, (0, 1), _OPACITY)[..., np.newaxis]
    pixels = np.array(picture.convert("L").convert("RGB"))  # (H, W, 3)
    seen = pixels[top:bottom, left:right]
    seen[:] = np.round((1 - alpha) * seen + alpha * colours()[np.round(255 * strength).astype(int)])
    return Image.fromarray(pixels)


@cache
def legend() -> str:
    """Return the colour scale, from no evidence on the left to the most, as a data: address."""
    width, height = _LEGEND
    return data_uri(Image.fromarray(np.broadcast_to(colours(), (height, width, 3)).copy()))


def data_uri(picture: Image.Image, size: int = 640) -> str:
    """Return a picture as a data: address of a JPEG, shrunk to at most ``size`` pixels wide and high."""
    small = picture.copy()
    small.thumbnail((size, size))
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
