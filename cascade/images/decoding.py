"""Decoding: from a path, bytes, a PIL image or an array to an upright picture in mode L or RGB."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cascade.errors import PictureError, TooManyPixelsError, UnknownFormatError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_PIXELS = 120_000_000
_STRIP = 4_000_000  # pixels

# Pillow warns from half its own limit on; here the limit is MAX_PIXELS, and exceeding it is an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray


def decode(source: Source, max_pixels: int = MAX_PIXELS, least_size: int | None = None) -> Image.Image:
    """Return the picture upright, first frame, in mode ``L`` (grey) or ``RGB``, 8 bits per channel.

    Parameters
    ----------
    source
        A path, the bytes of a file, a PIL image, or a uint8 array ``(H, W)`` or ``(H, W, 3)``.
    max_pixels
        The most pixels that a picture may have; a larger picture is refused before its pixels are decoded.
    least_size
        If given, a JPEG is decoded at a half, a quarter or an eighth of its size, as long as the shorter side keeps
        this many pixels (see :func:`cascade.images.preprocess.least_size`).

    Raises
    ------
    UnknownFormatError
        The file's format is not one of ``FORMATS``.
    TooManyPixelsError
        The picture has more pixels than ``max_pixels``.
    PictureError
        The file is missing, empty or truncated, or the array has another shape or type.

    Notes
    -----
    EXIF orientation is applied, transparent pixels are blended with white, 16-bit grey is scaled to 8 bits, and every
    other mode (CMYK, palette, YCbCr, LAB ...) becomes RGB.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        with _pillow_errors(max_pixels):
            return _normalise(source, max_pixels)
    with _opened(source) as file:
        if not file.read(1):
            raise PictureError("is empty (0 bytes); a picture was expected")
        file.seek(0)
        with _pillow_errors(max_pixels), Image.open(file, formats=FORMATS) as picture:
            _check_size(picture.width, picture.height, max_pixels)
            if least_size:
                picture.draft(None, (least_size, least_size))
            return _normalise(picture, max_pixels)


def pixel_count(data: bytes) -> int:
    """Return the number of pixels in a file's header; 0 if there is none."""
    try:
        with _pillow_errors(MAX_PIXELS), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return picture.width * picture.height
    except PictureError:
        return 0


def _opened(source: str | os.PathLike[str] | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise PictureError(f"cannot be opened: {error.strerror or error}") from error


@contextmanager
def _pillow_errors(max_pixels: int) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError as error:
        raise UnknownFormatError(f"is no picture of a known format; expected one of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"is over the limit of {max_pixels:,} pixels ({error}); make it smaller") from error
    # Pillow's decoders report damaged files with any of these, depending on the format.
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, IndexError) as error:
        raise PictureError(f"is damaged or incomplete: {error}") from error


def _normalise(picture: Image.Image, max_pixels: int) -> Image.Image:
    _check_size(picture.width, picture.height, max_pixels)
    upright = ImageOps.exif_transpose(picture)  # always a copy: the caller's picture is not changed
    if upright.mode in ("L", "RGB"):
        return upright
    if upright.mode == "F":
        raise PictureError("has floating-point pixels, whose range is not defined; save it with 8 or 16 bits")
    if upright.mode == "1":
        return upright.convert("L")
    if upright.mode.startswith("I"):
        return _from_16_bit(upright)
    if upright.has_transparency_data:
        return _on_white(upright)
    return upright.convert("RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    """Blend with white, one strip at a time: whole copies of a large picture would take gigabytes."""
    result = Image.new("RGB", picture.size)
    rows = max(1, _STRIP // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        result.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return result


def _from_16_bit(picture: Image.Image) -> Image.Image:
    values = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)  # (H, W)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixelsError(f"has {width}x{height} pixels, over the limit of {max_pixels:,}; make it smaller")


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not shape_fits or array.size == 0:
        raise PictureError(
            f"is an array of shape {array.shape} and type {array.dtype}; expected uint8 of (H, W) or (H, W, 3)"
        )
    _check_size(array.shape[1], array.shape[0], max_pixels)
    return Image.fromarray(np.ascontiguousarray(array))
