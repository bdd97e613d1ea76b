"""Labelled pictures that cannot be read: the error names them all, so that they are mended at once."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cascade.errors import CanonistiaError, PictureError
from cascade.images.decoding import decode

_NAMED = 20


def unreadable(bad: Sequence[tuple[Path, PictureError]]) -> CanonistiaError:
    """Return the error that stops work on labelled pictures: without these, its figures would be of another set."""
    named = "; ".join(f"{path}: {error}" for path, error in sorted(bad, key=lambda one: one[0])[:_NAMED])
    more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    which = "1 picture" if len(bad) == 1 else f"{len(bad)} pictures"
    return CanonistiaError(
        f"{which} cannot be read: remove or repair the files, or take the manifest without them that 'canonistia "
        f"check-data DATA --fix OUT.csv' writes ({named}{more})"
    )


def decoded(path: Path, least_size: int | None = None) -> Image.Image:
    """Return the picture of a file; a large JPEG is reduced (see :func:`cascade.images.decoding.decode`).

    Raises
    ------
    CanonistiaError
        The file is missing or no picture.
    """
    try:
        return decode(path, least_size=least_size)
    except PictureError as error:
        raise unreadable([(path, error)]) from error
