"""Decoding: from a path, bytes, a PIL image or an array to an upright picture in mode L or RGB."""

import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from cascade.errors import PictureError, TooManyPixelsError
from cascade.images.formats import HEAD, HEIF, checked_format
from cascade.images.normalise import normalise
from cascade.images.portable import decode_portable, is_slow

MAX_PIXELS = 120_000_000

# A file that holds far more pixels than any camera packs into its bytes was made to fill a memory.
_ALWAYS_PIXELS = 12_500_000  # whatever the file's size
_PIXELS_PER_BYTE = 120
_MAX_RATIO, _RATIO_FROM = 100, 4096  # longer to shorter side, of pictures whose longer side has more pixels than this
_TILE_TAGS = (322, 323)  # width and height of a TIFF's tiles
_TILE_PIXELS = 16_000_000

_STRIP_FACTORS = 16  # rows of the reduced picture that are made of an array at once

_LEAVE_ROWS = ("PNG", "GIF", "BMP", "TIFF", "PPM")  # formats whose decoders may end early without a word
_END_OF_JPEG = b"\xff\xd9"
_NOISE = bytes(range(1, 128)) * 2  # entropy-coded data that belongs to no picture

# The texts of a PNG may be compressed a thousand times; a photo has kilobytes of them.
PngImagePlugin.MAX_TEXT_MEMORY = 8 * 2**20

# Pillow warns from half its own limit on; MAX_PIXELS is the limit here, and it is an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Metadata that is damaged is passed over.
warnings.filterwarnings("ignore", module=r"PIL\.")

Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray


def decode(source: Source, max_pixels: int = MAX_PIXELS, least_size: int | None = None) -> Image.Image:
    """Return the picture upright, first frame, in mode ``L`` (grey) or ``RGB``, sRGB, 8 bits per channel.

    Parameters
    ----------
    source
        A path, the bytes of a file, a PIL image, or a uint8 array ``(H, W)`` or ``(H, W, 3)``.
    max_pixels
        The most pixels that a picture may have; a larger one is refused before its pixels are decoded.
    least_size
        Where given, a JPEG is decoded at a half, a quarter or an eighth of its size, by its own transform, and an array
        is averaged over squares of a whole number of pixels, as long as the shorter side keeps this many pixels (see
        :func:`cascade.images.preprocess.least_size`).

    Raises
    ------
    UnknownFormatError
        The file is of no allowed format (``cascade.images.formats.FORMATS``, and HEIC with pillow-heif).
    TooManyPixelsError
        The picture has more pixels than ``max_pixels``, far more than its bytes can hold, or a shape that none has.
    PictureError
        The file is missing, empty or damaged, lacks rows, does not fit into memory, or the array has another shape or
        type.

    Notes
    -----
    See :func:`cascade.images.normalise.normalise` for orientation, transparency, colour profiles and modes. A JPEG
    that lacks nothing but its end marker is decoded.
    """
    try:
        if isinstance(source, np.ndarray):
            return _from_array(source, max_pixels, least_size)
        if isinstance(source, Image.Image):
            _check_shape(source.width, source.height, max_pixels)
            return normalise(source.copy())
        with _opened(source) as file:
            return _from_file(file, max_pixels, least_size)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        refusal: PictureError = TooManyPixelsError(
            f"is over the limit of {max_pixels:,} pixels ({error}); make it smaller"
        )
    except UnidentifiedImageError:  # whose words hold an address in memory
        refusal = PictureError("is damaged or incomplete: it begins like a picture and does not go on like one")
    except MemoryError:
        refusal = PictureError("does not fit into the memory that is left; make it smaller")
    # Whatever a decoder raises is the error of this picture alone.
    except Exception as error:  # noqa: BLE001
        refusal = PictureError(f"is damaged or incomplete: {str(error) or type(error).__name__}")
    # Raised out here and kept by no frame, so that the decoder's frames, which hold the pixels, are let go at once.
    try:
        raise refusal
    finally:
        del refusal


@dataclass(frozen=True)
class DecodingCost:
    """What decoding a file takes."""

    memory: int  # bytes held at the peak, estimated from above
    pixels: int  # that the file holds: a measure of the time


def decoding_cost(data: bytes, max_pixels: int = MAX_PIXELS, least_size: int | None = None) -> DecodingCost:
    """Return what :func:`decode` will take for a file, from its header alone; nothing for a file that it refuses."""
    try:
        kind = checked_format(data[:HEAD])
        with Image.open(io.BytesIO(data), formats=[kind]) as picture:
            _check_shape(picture.width, picture.height, max_pixels)
            _check_plausible(picture, len(data))
            whole = picture.width * picture.height
            held = whole * 2 * len(picture.getbands()) if picture.info.get("progressive") else 0  # coefficients
            if least_size:
                picture.draft(None, (least_size, least_size))
            return DecodingCost(held + _tile_bytes(picture) + _copies_bytes(picture, kind), whole)
    except Exception:  # noqa: BLE001  # decode() says what is wrong
        return DecodingCost(0, 0)


# Bytes per pixel that decoders of a format hold beside the picture: planes, canvases, strips, and the comparison of
# a JPEG with itself.
_DECODER_BYTES = {"WEBP": 9, "AVIF": 12, HEIF: 12, "TIFF": 4, "JPEG": 6}
_CONVERTED = 2_000_000  # the most pixels that are converted at once
_CONVERTING_BYTES = 24  # per pixel that is being converted


def _copies_bytes(picture: Image.Image, kind: str) -> int:
    """Return the bytes of a picture's copies while it is decoded and normalised."""
    pixels = picture.width * picture.height
    plain = picture.mode in ("L", "RGB") and not {"transparency", "icc_profile"} & picture.info.keys()
    grey = picture.mode in ("1", "L", "I", "I;16", "I;16B") and (plain or picture.mode != "L")
    stored, result = (1 if picture.mode in ("1", "L", "P") else 4), (1 if grey else 4)
    copies = max(2 * stored, stored + (result if plain else 2 * result))  # decoded twice; converted, and then turned
    converted = 2 * _CONVERTED if kind == "PPM" else 0 if plain else _CONVERTED
    return pixels * (copies + _DECODER_BYTES.get(kind, 0)) + min(pixels, converted) * _CONVERTING_BYTES


def _tile_bytes(picture: Image.Image) -> int:
    width, height = (getattr(picture, "tag_v2", {}).get(tag, 0) for tag in _TILE_TAGS)
    return int(width * height * 4)


def _opened(source: str | os.PathLike[str] | bytes) -> BinaryIO:
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if not isinstance(source, str | os.PathLike):
        raise PictureError(
            f"is of type {type(source).__name__}; expected a path, the bytes of a file, a PIL image or a uint8 array"
        )
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise PictureError(f"cannot be opened: {error.strerror or error}") from error


def _from_file(file: BinaryIO, max_pixels: int, least_size: int | None) -> Image.Image:
    head = file.read(HEAD)
    if not head:
        raise PictureError("is empty (0 bytes); a picture was expected")
    kind = checked_format(head)
    size = file.seek(0, io.SEEK_END)

    def opened(content: BinaryIO) -> ImageFile.ImageFile:
        content.seek(0)
        picture = Image.open(content, formats=[kind])
        _check_shape(picture.width, picture.height, max_pixels)
        _check_plausible(picture, size)
        if least_size:
            picture.draft(None, (least_size, least_size))
        return picture

    with opened(file) as picture:
        if kind == "PPM" and is_slow(picture):
            return normalise(decode_portable(picture, file))
        try:
            picture.load()
        except OSError as error:
            if kind != "JPEG" or "truncated" not in str(error):
                raise
            return normalise(_without_end_marker(file, opened))
        _check_rows(picture, kind, file, opened)
        return normalise(picture)


_Opened = Callable[[BinaryIO], ImageFile.ImageFile]


def _without_end_marker(file: BinaryIO, opened: _Opened) -> Image.Image:
    """Return a JPEG that ends too early, if all of its rows are there: as every viewer shows it."""
    file.seek(0)
    content = file.read()
    with opened(io.BytesIO(content + _END_OF_JPEG)) as picture:
        picture.load()
        if not _is_complete_jpeg(picture, content, b"", opened):
            raise PictureError("is damaged or incomplete: the file ends before the picture does")
        return picture


def _is_complete_jpeg(picture: Image.Image, before: bytes, after: bytes, opened: _Opened) -> bool:
    """Return whether the data of a JPEG, ``before`` its end marker, hold all of the decoded picture.

    A decoder makes up what is missing. Noise behind the data is skipped where they are complete, and is decoded as
    pixels where they are not.
    """
    with opened(io.BytesIO(before + _NOISE + _END_OF_JPEG + after)) as noisy:
        try:
            noisy.load()
        except OSError:
            return False
        return noisy.tobytes() == picture.tobytes()


def _check_rows(picture: Image.Image, kind: str, file: BinaryIO, opened: _Opened) -> None:
    """Raise PictureError where the decoder was content, and the last rows were not in the file.

    What a decoder makes up is of one colour, and what it leaves out is black. Most pictures end in another way; one
    that does not is decoded again, to find out.
    """
    width, height = picture.size
    if kind == "JPEG":
        if not _is_plain(picture.crop((max(0, width - 8), max(0, height - 2), width, height))):
            return
        file.seek(0)
        before, found, after = file.read().rpartition(_END_OF_JPEG)
        complete = not found or _is_complete_jpeg(picture, before, after, opened)
    else:
        if kind not in _LEAVE_ROWS or all(_has_light(picture, row) for row in range(max(0, height - 2), height)):
            return
        with opened(file) as again:
            again.im = Image.new(again.mode, again.size, _brightest(again.mode)).im
            again.load()
            last = (0, max(0, height - 2), width, height)
            complete = again.crop(last).tobytes() == picture.crop(last).tobytes()
    if not complete:
        raise PictureError("is damaged or incomplete: the last rows of the picture are missing")


def _has_light(picture: Image.Image, row: int) -> bool:
    return picture.crop((0, row, picture.width, row + 1)).getbbox(alpha_only=False) is not None


def _is_plain(picture: Image.Image) -> bool:
    extrema = picture.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in bands)


def _brightest(mode: str) -> int | tuple[int, ...]:
    count = len(Image.new(mode, (1, 1)).getbands())
    return 255 if count == 1 else (255,) * count


def _check_shape(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixelsError(f"has {width}x{height} pixels, over the limit of {max_pixels:,}; make it smaller")
    longer, shorter = max(width, height), min(width, height)
    if longer > _RATIO_FROM and longer > _MAX_RATIO * shorter:
        raise TooManyPixelsError(
            f"has {width}x{height} pixels, over the limit of {_MAX_RATIO} to 1 for its sides; cut it into parts"
        )


def _check_plausible(picture: Image.Image, size: int) -> None:
    pixels = picture.width * picture.height
    if pixels > max(_ALWAYS_PIXELS, _PIXELS_PER_BYTE * size):
        raise TooManyPixelsError(
            f"has {picture.width}x{picture.height} pixels in a file of {size:,} bytes, as no photo has; make it smaller"
        )
    width, height = (getattr(picture, "tag_v2", {}).get(tag) for tag in _TILE_TAGS)
    if width and height and not 0 < width * height <= max(_TILE_PIXELS, pixels):
        raise TooManyPixelsError(
            f"has tiles of {width}x{height} pixels for {picture.width}x{picture.height}; save it without tiles"
        )


def _from_array(array: np.ndarray, max_pixels: int, least_size: int | None) -> Image.Image:
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not shape_fits or array.size == 0:
        raise PictureError(
            f"is an array of shape {array.shape} and type {array.dtype}; expected uint8 of (H, W) or (H, W, 3)"
        )
    height, width = array.shape[:2]
    _check_shape(width, height, max_pixels)
    factor = min(width, height) // least_size if least_size else 1
    if factor < 2:
        return Image.fromarray(np.ascontiguousarray(array))
    # In strips that fit into the processor's cache: a copy of the whole picture would cost more than the averages.
    strips = [
        Image.fromarray(np.ascontiguousarray(array[top : top + _STRIP_FACTORS * factor])).reduce(factor)
        for top in range(0, height, _STRIP_FACTORS * factor)
    ]
    reduced = Image.new(strips[0].mode, (strips[0].width, sum(strip.height for strip in strips)))
    for number, strip in enumerate(strips):
        reduced.paste(strip, (0, number * _STRIP_FACTORS))
    return reduced
