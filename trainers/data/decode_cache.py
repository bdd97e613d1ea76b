"""Decoded pictures: from files each time, or cached in memory or on disk for later epochs."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
from PIL import Image

from cascade.errors import CanonistiaError
from cascade.files import cache_folder, written_whole
from cascade.images.unreadable import decoded
from cascade.progress import track

Decoder = Callable[[Path, int | None], Image.Image]


def decoder(cache: str, paths: Sequence[Path]) -> Decoder:
    """Return the function that returns the picture of a file.

    Parameters
    ----------
    cache
        ``none``; ``memory``: all pictures are decoded now, and processes that are forked later share them; ``disk``:
        each is written below ``$CANONISTIA_CACHE`` when it is first decoded.

    Raises
    ------
    CanonistiaError
        The cache is unknown, or a picture cannot be read.
    """
    if cache == "none":
        return decoded
    if cache == "memory":
        kept = {path: decoded(path) for path in track(paths, "decoding pictures")}
        return _with_reduced(kept.__getitem__)
    if cache == "disk":
        return _with_reduced(_from_disk)
    raise CanonistiaError(f"unknown cache '{cache}'; expected none, memory or disk")


def _with_reduced(whole: Callable[[Path], Image.Image]) -> Decoder:
    """Return a decoder from a cache of whole pictures; one that evaluation takes reduced is decoded again for it."""

    def give(path: Path, least_size: int | None) -> Image.Image:
        picture = whole(path)
        return decoded(path, least_size) if least_size and min(picture.size) >= 2 * least_size else picture

    return give


def _from_disk(path: Path) -> Image.Image:
    try:
        status = path.stat()
    except OSError:
        return decoded(path)  # raises the error of a missing file
    key = hashlib.sha256(f"{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}".encode()).hexdigest()
    kept = cache_folder() / "decoded" / f"{key}.npy"
    try:
        return Image.fromarray(np.load(kept))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError) as error:
        click.echo(f"the decoded picture {kept} cannot be read ({error}): decoding it again", err=True)
    picture = decoded(path)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(kept) as partial, partial.open("wb") as file:
            np.save(file, np.asarray(picture))
    except OSError as error:
        raise CanonistiaError(
            f"{kept} cannot be written ({error.strerror}); free some disk space, or leave --cache out"
        ) from error
    return picture
