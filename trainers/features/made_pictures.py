"""Pictures that are made from others, in files that live as long as they are needed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageOps

from cascade.errors import CanonistiaError
from cascade.images.unreadable import decoded
from cascade.progress import track
from trainers.data.composed import Pair, compose


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


@contextmanager
def composed_pictures(paths: Sequence[Path], pairs: Sequence[Pair], least_size: int) -> Iterator[list[Path]]:
    """Give a file for each pair of pictures, composed; what chance decides depends on the pair alone.

    The files are removed at the end of the block.

    Parameters
    ----------
    least_size
        What the networks need of a picture's shorter side in pixels (:func:`cascade.images.preprocess.least_size`); a
        larger picture is shrunk to it first.

    Raises
    ------
    CanonistiaError
        A picture cannot be read, or there is no room for the files.
    """
    made = (_composed(paths, pair, least_size) for pair in track(pairs, "composing pictures"))
    with temporary_files(made, f"{len(pairs)} composed pictures") as files:
        yield files


def _composed(paths: Sequence[Path], pair: Pair, least_size: int) -> Image.Image:
    first, second = (shrunk(paths[index], least_size) for index in (pair.first, pair.second))
    return compose(pair.way, first, second, np.random.default_rng([pair.first, pair.second]))
