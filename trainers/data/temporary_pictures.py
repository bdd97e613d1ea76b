"""Pictures that are made from others, in files that live as long as they are needed."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageOps

from cascade.errors import CanonistiaError
from cascade.images.unreadable import decoded


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
