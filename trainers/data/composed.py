"""Composed pictures: two pictures of different classes in one frame, as a photo may show two environments.

Each way of composing is a function of two pictures of one mode (L or RGB) and a source of chance. The result has the
size of the first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

Compose = Callable[[Image.Image, Image.Image, np.random.Generator], Image.Image]

_SHARES = (0.4, 0.6)  # of the frame that one of the two pictures gets
_INSET = (0.45, 0.6)  # of the frame's sides
_SOFT_HORIZON = 0.06  # of the height, over which one picture fades into the other
_SOFT_DIAGONAL = 0.2  # of the way from corner to corner


@dataclass(frozen=True)
class Pair:
    """Two pictures of different classes, by their indices, and the name of the way in which they are composed."""

    first: int
    second: int
    way: str


def side_by_side(first: Image.Image, second: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Put the pictures beside each other, each cropped to its part of the frame."""
    width, height = first.size
    cut = round(width * rng.uniform(*_SHARES))
    return _joined(first, second, (0, 0, cut, height), (cut, 0, width, height), rng)


def stacked(first: Image.Image, second: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Put one picture above the other, each cropped to its part of the frame."""
    width, height = first.size
    cut = round(height * rng.uniform(*_SHARES))
    return _joined(first, second, (0, 0, width, cut), (0, cut, width, height), rng)


def inset(first: Image.Image, second: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Put a small copy of the second picture into a corner of the first."""
    width, height = (max(1, round(side * rng.uniform(*_INSET))) for side in first.size)
    left, top = ((whole - part) * int(rng.integers(2)) for whole, part in zip(first.size, (width, height), strict=True))
    frame = first.copy()
    frame.paste(_fitted(second, (width, height), rng), (left, top))
    return frame


def horizon(first: Image.Image, second: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Take the upper part of one picture and the lower part of the other, along a soft horizon."""
    height = first.height
    place = (np.arange(height) + 0.5) / height  # (height,)
    upper = np.clip(0.5 - (place - rng.uniform(*_SHARES)) / _SOFT_HORIZON, 0, 1)
    return _blended(first, second, np.repeat(upper[:, None], first.width, axis=1), rng)


def diagonal(first: Image.Image, second: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Fade one picture into the other along a diagonal."""
    width, height = first.size
    across = (np.arange(width) + 0.5) / width
    if rng.random() < 0.5:
        across = across[::-1]
    place = ((np.arange(height) + 0.5)[:, None] / height + across) / 2  # (height, width), 0 to 1 between two corners
    return _blended(first, second, np.clip(0.5 - (place - rng.uniform(*_SHARES)) / _SOFT_DIAGONAL, 0, 1), rng)


# The ways in which pictures are composed for training and for fitting.
WAYS: Mapping[str, Compose] = {one.__name__: one for one in (side_by_side, stacked, inset, horizon)}
# Kept from training and fitting, so that its figures are of a way never seen; only measuring may use it.
UNSEEN_WAYS: Mapping[str, Compose] = {diagonal.__name__: diagonal}


def compose(way: str, first: Image.Image, second: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return two pictures composed in a way by its name, in colour if one of them is; KeyError if there is no such way.

    Chance also decides which of the two is on the left, above or small; the result has the size of one of them.
    """
    if {first.mode, second.mode} != {"L"}:
        first, second = first.convert("RGB"), second.convert("RGB")
    if rng.random() < 0.5:
        first, second = second, first
    return {**WAYS, **UNSEEN_WAYS}[way](first, second, rng)


def draw_pairs(targets: np.ndarray, count: int, ways: Sequence[str], seed: int) -> list[Pair]:
    """Return pairs of pictures of different classes (N,), as many of each way as of another but for one.

    No picture comes first a second time before every other did. The pairs depend on the classes and the seed alone.

    Raises
    ------
    ValueError
        There are fewer than two classes.
    """
    if len(np.unique(targets)) < 2:
        raise ValueError("pictures of one class cannot be composed of two; give pictures of two classes or more")
    rng = np.random.default_rng(seed)
    rounds = -(-count // len(targets))
    firsts = np.concatenate([rng.permutation(len(targets)) for _ in range(rounds)])[:count]
    return [
        Pair(int(first), int(rng.choice(np.flatnonzero(targets != targets[first]))), ways[number % len(ways)])
        for number, first in enumerate(firsts)
    ]


def parents_of(pairs: Sequence[Pair]) -> np.ndarray:
    """Return the indices of both pictures of each pair, (M, 2)."""
    return np.array([(pair.first, pair.second) for pair in pairs]).reshape(-1, 2)


def _joined(
    first: Image.Image,
    second: Image.Image,
    box: tuple[int, int, int, int],
    other_box: tuple[int, int, int, int],
    rng: np.random.Generator,
) -> Image.Image:
    frame = Image.new(first.mode, first.size)
    for picture, (left, top, right, bottom) in ((first, box), (second, other_box)):
        frame.paste(_fitted(picture, (right - left, bottom - top), rng), (left, top))
    return frame


def _blended(first: Image.Image, second: Image.Image, share: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Return the mean of both, weighed by the share (height, width) of the first."""
    mask = Image.fromarray(np.rint(255 * share).astype(np.uint8))
    return Image.composite(first, _fitted(second, first.size, rng), mask)


def _fitted(picture: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return a picture scaled and cropped to a size (width, height), at a random place."""
    return ImageOps.fit(
        picture, (max(1, size[0]), max(1, size[1])), Image.Resampling.BICUBIC, centering=(rng.random(), rng.random())
    )
