"""Shifted pictures: validation pictures made worse, as from a camera or a site that the networks did not see."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from cascade.images.degradations import DEGRADATIONS, STRENGTHS
from cascade.progress import track
from trainers.features.made_pictures import shrunk, temporary_files

# The other kinds of the stress test are kept from every fit, so that its figures under these are of kinds never seen.
KINDS = ("blur", "defocus", "jpeg", "low_resolution", "brightness", "contrast", "rotation", "wide", "tall", "grey")


@contextmanager
def shifted_pictures(paths: Sequence[Path], least_size: int) -> Iterator[list[Path]]:
    """Give a file for each picture: the picture made worse by one of ``KINDS`` at one strength, both by chance.

    Chance depends on a picture's pixels alone. The files are removed at the end of the block.

    Parameters
    ----------
    least_size
        What the networks need of a picture's shorter side in pixels (:func:`cascade.images.preprocess.least_size`); a
        larger picture is shrunk to it first, because its file would take seconds to write.

    Raises
    ------
    CanonistiaError
        A picture cannot be read, or there is no room for the files.
    """
    shifted = (_shifted(shrunk(path, least_size)) for path in track(paths, "making shifted copies"))
    with temporary_files(shifted, f"shifted copies of {len(paths)} pictures") as files:
        yield files


def _shifted(picture: Image.Image) -> Image.Image:
    rng = np.random.default_rng(zlib.crc32(picture.tobytes()))
    kind, strength = rng.choice(KINDS), int(rng.choice(STRENGTHS))
    return DEGRADATIONS[str(kind)](picture, strength, rng)
