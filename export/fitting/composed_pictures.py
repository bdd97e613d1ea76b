"""Composed pictures: validation pictures in pairs of different classes, so that what shows two of them is known."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from cascade.progress import track
from export.fitting.shifted_pictures import shrunk, temporary_files
from trainers.data.composed import WAYS, Pair, compose, draw_pairs

_MOST = 1000  # pairs that a rule is fitted on; more would take time and hardly change it


@contextmanager
def composed_pictures(paths: Sequence[Path], pairs: Sequence[Pair], least_size: int) -> Iterator[list[Path]]:
    """Give a file for each pair of pictures, composed; what chance decides depends on the pair alone.

    The files are removed at the end of the block. ``least_size`` is that of
    :func:`export.fitting.shifted_pictures.shifted_pictures`.

    Raises
    ------
    CanonistiaError
        A picture cannot be read, or there is no room for the files.
    """
    made = (_composed(paths, pair, least_size) for pair in track(pairs, "composing pictures"))
    with temporary_files(made, f"{len(pairs)} composed pictures") as files:
        yield files


def pairs_to_fit(targets: np.ndarray, seed: int) -> list[Pair]:
    """Return the pairs of pictures of different classes (N,) that rules are fitted on."""
    return draw_pairs(targets, min(_MOST, len(targets)), tuple(WAYS), seed)


def parents_of(pairs: Sequence[Pair]) -> np.ndarray:
    """Return the indices of both pictures of each pair, (M, 2)."""
    return np.array([(pair.first, pair.second) for pair in pairs]).reshape(-1, 2)


def _composed(paths: Sequence[Path], pair: Pair, least_size: int) -> Image.Image:
    first, second = (shrunk(paths[index], least_size) for index in (pair.first, pair.second))
    return compose(pair.way, first, second, np.random.default_rng([pair.first, pair.second]))
