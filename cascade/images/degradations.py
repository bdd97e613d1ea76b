"""Degradations: what happens to pictures before they reach a model, each a named function with a strength.

The families are those of ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261) and what telephones and the web add:
small copies, other shapes, a camera held at a slant. Lengths are meant for a picture whose shorter side has
``REFERENCE`` pixels and grow with the picture, so that a photo and its small copy are made equally worse.
"""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

REFERENCE = 250  # pixels
STRENGTHS = (1, 2, 3)

Degrade = Callable[[Image.Image, float, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Degradation:
    """A function of a picture (mode L or RGB), a value and a source of chance, with its values for ``STRENGTHS``."""

    function: Degrade
    values: tuple[float, float, float]

    def __call__(self, picture: Image.Image, strength: int, rng: np.random.Generator) -> Image.Image:
        """Return the picture made worse, in the same mode; ``strength`` is 1, 2 or 3."""
        return self.function(picture, self.values[strength - 1], rng)


def blur(picture: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    """Blur by a Gaussian of ``sigma`` pixels."""
    return picture.filter(ImageFilter.GaussianBlur(sigma * _scale(picture)))


def defocus(picture: Image.Image, radius: float, rng: np.random.Generator) -> Image.Image:
    """Blur by a disk of ``radius`` pixels, as a lens out of focus does."""
    radius *= _scale(picture)
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _convolved(picture, np.clip(radius + 0.5 - np.hypot(x, y), 0, 1))


def motion(picture: Image.Image, length: float, rng: np.random.Generator) -> Image.Image:
    """Blur along a line of ``length`` pixels in a random direction."""
    length *= _scale(picture)
    reach = math.ceil(length / 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    angle = rng.uniform(0, math.pi)
    along, across = x * math.cos(angle) + y * math.sin(angle), x * math.sin(angle) - y * math.cos(angle)
    return _convolved(picture, np.clip(1 - np.abs(across), 0, 1) * (np.abs(along) <= length / 2))


def noise(picture: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    """Add Gaussian noise with a standard deviation of ``sigma`` of 255; its grain grows with the picture."""
    pixels = np.asarray(picture, dtype=np.float32)
    grain = max(1, round(_scale(picture)))
    small = rng.normal(0, sigma, (*(-(-side // grain) for side in pixels.shape[:2]), *pixels.shape[2:]))
    grains = small.repeat(grain, axis=0).repeat(grain, axis=1)[: pixels.shape[0], : pixels.shape[1]]
    return _picture(pixels + grains)


def jpeg(picture: Image.Image, quality: float, rng: np.random.Generator) -> Image.Image:
    """Save as JPEG of this quality, and read again."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(quality))
    return Image.open(file).convert(picture.mode)


def low_resolution(picture: Image.Image, side: float, rng: np.random.Generator) -> Image.Image:
    """Make the picture small: ``side`` pixels on the shorter side."""
    scale = side / min(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def brightness(picture: Image.Image, change: float, rng: np.random.Generator) -> Image.Image:
    """Multiply by 1 + ``change`` or by 1 - ``change``, at random."""
    return ImageEnhance.Brightness(picture).enhance(1 + change if rng.random() < 0.5 else 1 - change)


def contrast(picture: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    """Multiply the difference from the mean brightness by ``factor``."""
    return ImageEnhance.Contrast(picture).enhance(factor)


def gamma(picture: Image.Image, exponent: float, rng: np.random.Generator) -> Image.Image:
    """Raise to the power of ``exponent`` (darker), or of its counterpart below 1 (lighter), at random.

    The counterparts of 1.5, 2 and 2.5 are 0.7, 0.5 and 0.4: the inverse, rounded to one digit.
    """
    power = exponent if rng.random() < 0.5 else round(1 / exponent, 1)
    table = [round(255 * (value / 255) ** power) for value in range(256)]
    return picture.point(table * len(picture.getbands()))


def haze(picture: Image.Image, depth: float, rng: np.random.Generator) -> Image.Image:
    """Lay a light veil over the picture, uneven and thicker towards the top; ``depth`` is its share at the top."""
    width, height = picture.size
    uneven = Image.fromarray(rng.uniform(0.75, 1, (4, 4)).astype(np.float32))
    clouds = np.asarray(uneven.resize(picture.size, Image.Resampling.BICUBIC))  # (height, width)
    share = np.clip(clouds * np.linspace(depth, depth / 2, height, dtype=np.float32)[:, None], 0, 1)
    pixels = np.asarray(picture, dtype=np.float32)
    share = share.reshape(height, width, *(1,) * (pixels.ndim - 2))
    return _picture(pixels * (1 - share) + 225 * share)


def rotation(picture: Image.Image, degrees: float, rng: np.random.Generator) -> Image.Image:
    """Turn to the left or the right, at random, and keep the largest part of the same shape without empty corners."""
    turned = picture.rotate(degrees if rng.random() < 0.5 else -degrees, Image.Resampling.BICUBIC)
    width, height = picture.size
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    kept = 1 / max(cosine + sine * height / width, cosine + sine * width / height)
    return _central(turned, width * kept, height * kept)


def wide(picture: Image.Image, ratio: float, rng: np.random.Generator) -> Image.Image:
    """Keep the central part that is ``ratio`` times as wide as high."""
    width, height = picture.size
    return _central(picture, min(width, height * ratio), min(height, width / ratio))


def tall(picture: Image.Image, ratio: float, rng: np.random.Generator) -> Image.Image:
    """Keep the central part that is ``ratio`` times as high as wide."""
    width, height = picture.size
    return _central(picture, min(width, height / ratio), min(height, width * ratio))


def grey(picture: Image.Image, saturation: float, rng: np.random.Generator) -> Image.Image:
    """Keep this share of the colour."""
    return ImageEnhance.Color(picture).enhance(saturation)


# The values are fixed: figures of different bundles and days can be compared.
DEGRADATIONS: Mapping[str, Degradation] = {
    "blur": Degradation(blur, (1, 2, 4)),
    "defocus": Degradation(defocus, (1.5, 3, 5)),
    "motion": Degradation(motion, (5, 9, 15)),
    "noise": Degradation(noise, (12, 25, 38)),
    "jpeg": Degradation(jpeg, (40, 20, 10)),
    "low_resolution": Degradation(low_resolution, (128, 96, 64)),
    "brightness": Degradation(brightness, (0.25, 0.45, 0.6)),
    "contrast": Degradation(contrast, (0.7, 0.5, 0.3)),
    "gamma": Degradation(gamma, (1.5, 2, 2.5)),
    "haze": Degradation(haze, (0.4, 0.6, 0.8)),
    "rotation": Degradation(rotation, (5, 10, 20)),
    "wide": Degradation(wide, (16 / 9, 2, 3)),
    "tall": Degradation(tall, (16 / 9, 2, 3)),
    "grey": Degradation(grey, (0.5, 0.2, 0)),
}


def _scale(picture: Image.Image) -> float:
    return min(picture.size) / REFERENCE


def _central(picture: Image.Image, width: float, height: float) -> Image.Image:
    kept = [max(1, round(side)) for side in (width, height)]
    left, top = ((side - part) // 2 for side, part in zip(picture.size, kept, strict=True))
    return picture.crop((left, top, left + kept[0], top + kept[1]))


def _convolved(picture: Image.Image, kernel: np.ndarray) -> Image.Image:
    """Return the picture convolved with a kernel of odd size (2r+1, 2r+1), by way of Fourier; edges are repeated."""
    reach = len(kernel) // 2
    pixels = np.asarray(picture, dtype=np.float32)
    height, width = pixels.shape[:2]
    planes = pixels.reshape(height, width, -1)
    padded = np.pad(planes, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    shape = padded.shape[:2]
    kernel = np.asarray(kernel / kernel.sum(), dtype=np.float32)
    product = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, shape)[..., None]
    whole = np.fft.irfft2(product, shape, axes=(0, 1))
    return _picture(whole[2 * reach :, 2 * reach :].reshape(pixels.shape))


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
