"""Shifted pictures: validation pictures made worse, as from a camera or a site that the networks did not see."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from cascade.errors import PictureError
from cascade.images.decoding import decode
from cascade.images.degradations import DEGRADATIONS, STRENGTHS
from cascade.images.unreadable import unreadable
from trainers.progress import track

# The other kinds of the stress test are kept from every fit, so that its figures under these are of kinds never seen.
KINDS = ("blur", "defocus", "jpeg", "low_resolution", "brightness", "contrast", "rotation", "wide", "tall", "grey")
_SIDE = 512  # pixels: a network sees no more, and larger files take long to write


@contextmanager
def shifted_pictures(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Give a file for each picture: the picture made worse by one of ``KINDS`` at one strength, both by chance.

    Chance depends on a picture's pixels alone. The files are removed at the end of the block.

    Raises
    ------
    CanonistiaError
        A picture cannot be read.
    """
    with TemporaryDirectory(prefix="canonistia-") as folder:
        written = [Path(folder, f"{number}.png") for number in range(len(paths))]
        for path, to in zip(track(paths, "making pictures worse"), written, strict=True):
            picture = _decoded(path)
            picture.thumbnail((4 * _SIDE, 4 * _SIDE))
            rng = np.random.default_rng(zlib.crc32(picture.tobytes()))
            kind, strength = rng.choice(KINDS), int(rng.choice(STRENGTHS))
            DEGRADATIONS[str(kind)](picture, strength, rng).save(to, compress_level=1)
        yield written


def _decoded(path: Path) -> Image.Image:
    try:
        return decode(path, least_size=_SIDE)
    except PictureError as error:
        raise unreadable([(path, error)]) from error
