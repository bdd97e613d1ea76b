"""Shifted pictures: validation pictures made worse, as from a camera or a site that the networks did not see."""

import zlib
from collections.abc import Iterator, Sequence
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
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="canonistia-"))
            written = [Path(folder, f"{number}.png") for number in range(len(paths))]
            for path, to in zip(track(paths, "making shifted copies"), written, strict=True):
                _shifted(decoded(path, least_size), least_size).save(to, compress_level=1)
        except OSError as error:
            raise CanonistiaError(
                f"shifted copies of {len(paths)} pictures cannot be written ({error.strerror or error}); they need a "
                "folder of temporary files with room; set TMPDIR to one"
            ) from error
        yield written


def _shifted(picture: Image.Image, least_size: int) -> Image.Image:
    if min(picture.size) > least_size:
        picture = ImageOps.cover(picture, (least_size, least_size), Image.Resampling.BOX)
    rng = np.random.default_rng(zlib.crc32(picture.tobytes()))
    kind, strength = rng.choice(KINDS), int(rng.choice(STRENGTHS))
    return DEGRADATIONS[str(kind)](picture, strength, rng)
