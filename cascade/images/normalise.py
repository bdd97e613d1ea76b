"""Normalising: from a decoded picture of any mode to an upright one in mode L or RGB, sRGB, 8 bits per channel."""

import io
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cascade.errors import PictureError

if TYPE_CHECKING:
    from PIL import ImageCms

_STRIP = 2_000_000  # pixels that are converted at once: whole copies of a large picture would take gigabytes
_ORIENTATION = 0x0112  # the EXIF tag
_PHOTOMETRIC, _BITS = 262, 258  # TIFF tags
_WHITE_IS_ZERO = 0
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_COLOUR_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # of a profile that fits a picture's mode


def normalise(picture: Image.Image) -> Image.Image:
    """Return a decoded picture upright, in mode ``L`` or ``RGB``; the given picture may be the result.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits, an embedded ICC profile is converted to sRGB (one
    that is broken, or of another colour space than the picture, is passed over), every other mode becomes RGB, and
    last the EXIF orientation is applied.

    Raises
    ------
    PictureError
        The picture holds floating-point pixels.
    """
    profile = picture.info.get("icc_profile")
    orientation = _orientation(picture)
    flat = _without_profile(picture)
    if profile and isinstance(profile, bytes):
        flat = _to_srgb(flat, profile)
    if flat.mode not in ("L", "RGB"):
        flat = flat.convert("RGB")
    return flat.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else flat


def _without_profile(picture: Image.Image) -> Image.Image:
    """Return the picture in mode L, RGB or CMYK, in whatever colour space it has; in another mode where that fails."""
    if picture.mode == "F":
        raise PictureError("holds floating-point pixels, which have no agreed range; save it as 8 or 16 bits")
    if picture.mode.startswith("I"):
        return _from_16_bit(picture)
    if picture.has_transparency_data:
        return _on_white(picture)
    if picture.mode == "1":
        return picture.convert("L")
    return picture if picture.mode in _COLOUR_SPACES else picture.convert("RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    def laid(strip: Image.Image) -> Image.Image:
        strip = strip.convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, strip).convert("RGB")

    return _by_strips(picture, "RGB", laid)


def _from_16_bit(picture: Image.Image) -> Image.Image:
    tags = getattr(picture, "tag_v2", {})
    bits = _first(tags.get(_BITS), 16)
    most = 2**bits - 1 if picture.mode.startswith("I;16") and 8 < bits < 16 else 65535
    inverted = picture.mode.startswith("I;16") and _first(tags.get(_PHOTOMETRIC), 1) == _WHITE_IS_ZERO

    def scaled(strip: Image.Image) -> Image.Image:
        values = np.clip(np.asarray(strip).astype(np.int64), 0, most)  # (H, W)
        values = (2 * 255 * values + most) // (2 * most)
        return Image.fromarray((255 - values if inverted else values).astype(np.uint8))

    return _by_strips(picture, "L", scaled)


def _by_strips(picture: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    result = Image.new(mode, picture.size)
    rows = max(1, _STRIP // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        result.paste(convert(strip), (0, top))
    return result


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; only this entry is read: others may hold anything."""
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    # Broken metadata ends Pillow's reader in many ways, and the picture beside it is whole.
    except Exception:  # noqa: BLE001
        return 1


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    from PIL import ImageCms  # only now: most pictures have no profile

    transform = _transform(profile, picture.mode)
    if transform is None:
        return picture
    if picture.mode == "RGB":
        ImageCms.applyTransform(picture, transform, inPlace=True)
        return picture

    def converted(strip: Image.Image) -> Image.Image:
        result = ImageCms.applyTransform(strip, transform)
        assert result is not None  # it is None in place alone
        return result

    flat = _by_strips(picture, "RGB", converted)
    return flat.getchannel("G") if picture.mode == "L" else flat


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> "ImageCms.ImageCmsTransform | None":
    """Return the way from a profile to sRGB; None where there is none, or nothing to do."""
    from PIL import ImageCms

    if mode not in _COLOUR_SPACES:
        return None
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if given.profile.xcolor_space != _COLOUR_SPACES[mode]:
            return None
        if (given.profile.profile_description or "").startswith("sRGB"):
            return None
        return ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")
    # What a broken profile makes of the reader is no reason to refuse the picture.
    except Exception:  # noqa: BLE001
        return None


def _first(value: object, otherwise: int) -> int:
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else otherwise
