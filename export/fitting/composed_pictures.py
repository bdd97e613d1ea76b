"""Composed pictures: validation pictures in pairs of different classes, so that what shows two of them is known."""

import math
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


def pairs_within(folds: np.ndarray, targets: np.ndarray, seed: int) -> list[Pair]:
    """Return pairs as :func:`pairs_to_fit` does, whose pictures are of one fold (N,): one model has seen neither."""
    pairs: list[Pair] = []
    for number in range(int(folds.max()) + 1):
        indices = np.flatnonzero(folds == number)
        count = math.ceil(min(_MOST, len(targets)) * len(indices) / len(targets))
        pairs += [
            Pair(int(indices[pair.first]), int(indices[pair.second]), pair.way)
            for pair in draw_pairs(targets[indices], count, tuple(WAYS), seed + number)
        ]
    return pairs


def parents_of(pairs: Sequence[Pair]) -> np.ndarray:
    """Return the indices of both pictures of each pair, (M, 2)."""
    return np.array([(pair.first, pair.second) for pair in pairs]).reshape(-1, 2)


def _composed(paths: Sequence[Path], pair: Pair, least_size: int) -> Image.Image:
    first, second = (shrunk(paths[index], least_size) for index in (pair.first, pair.second))
    return compose(pair.way, first, second, np.random.default_rng([pair.first, pair.second]))
