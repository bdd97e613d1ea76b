"""Portable pixmaps (PPM, PGM) whose values Pillow would scale one by one, in Python."""

from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from cascade.errors import PictureError, TooManyPixelsError

_PLAIN_VALUES = 3_000_000  # that are written as text: a second or two of work
_BLOCK = 4_000_000  # values that are scaled at once


def is_slow(picture: ImageFile.ImageFile) -> bool:
    """Return whether an opened portable pixmap is decoded in Python: another greatest value than 255, or plain text.

    Raises
    ------
    TooManyPixelsError
        It is plain text, and too long to read.
    """
    codec = picture.tile[0].codec_name
    values = picture.width * picture.height * len(picture.getbands())
    if codec == "ppm_plain" and values > _PLAIN_VALUES:
        raise TooManyPixelsError(
            f"holds {values:,} values as text, over the limit of {_PLAIN_VALUES:,}; save it as PNG"
        )
    return codec == "ppm"


def decode_portable(picture: ImageFile.ImageFile, file: BinaryIO) -> Image.Image:
    """Return an opened portable pixmap of any greatest value in mode L or RGB, scaled to 8 bits.

    Raises
    ------
    PictureError
        Rows are missing.
    """
    tile = picture.tile[0]
    assert isinstance(tile.args, tuple)
    most = int(tile.args[1])
    bands = 1 if picture.mode in ("L", "I") else 3
    total = picture.width * picture.height * bands
    kind = np.dtype(np.uint8 if most < 256 else ">u2")
    scaled = np.empty(total, dtype=np.uint8)
    file.seek(tile.offset)
    for start in range(0, total, _BLOCK):
        wanted = min(_BLOCK, total - start)
        values = np.frombuffer(file.read(wanted * kind.itemsize), dtype=kind).astype(np.int64)
        if len(values) < wanted:
            raise PictureError(f"is damaged or incomplete: {total:,} values were expected, it ends early")
        scaled[start : start + wanted] = np.minimum((2 * 255 * values + most) // (2 * most), 255)
    shape = (picture.height, picture.width, bands)
    return Image.fromarray(scaled.reshape(shape[: 2 if bands == 1 else 3]))
