"""Shifted pictures: validation pictures made worse, as from a camera or a site that the networks did not see."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageOps

from cascade.errors import CanonistiaError
from cascade.images.degradations import DEGRADATIONS, STRENGTHS
from cascade.images.unreadable import decoded
from cascade.progress import track

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


@contextmanager
def temporary_files(pictures: Iterable[Image.Image], what: str) -> Iterator[list[Path]]:
    """Give a file for each of the pictures, which are made one by one; the files are removed at the end of the block.

    Raises
    ------
    CanonistiaError
        There is no room for the files; it says what they are.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="canonistia-"))
            written = []
            for number, picture in enumerate(pictures):
                written.append(Path(folder, f"{number}.png"))
                picture.save(written[-1], compress_level=1)
        except OSError as error:
            raise CanonistiaError(
                f"{what} cannot be written ({error.strerror or error}); they need a folder of temporary files with "
                "room; set TMPDIR to one"
            ) from error
        yield written


def shrunk(path: Path, least_size: int) -> Image.Image:
    """Return the picture of a file, its shorter side no longer than ``least_size`` pixels.

    Raises
    ------
    CanonistiaError
        It cannot be read.
    """
    picture = decoded(path, least_size)
    if min(picture.size) > least_size:
        picture = ImageOps.cover(picture, (least_size, least_size), Image.Resampling.BOX)
    return picture


def _shifted(picture: Image.Image) -> Image.Image:
    rng = np.random.default_rng(zlib.crc32(picture.tobytes()))
    kind, strength = rng.choice(KINDS), int(rng.choice(STRENGTHS))
    return DEGRADATIONS[str(kind)](picture, strength, rng)
