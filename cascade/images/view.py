"""A view: a decoded picture together with the pixels that models see of it."""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from cascade.images.decoding import MAX_PIXELS, Source, decode
from cascade.images.preprocess import PreprocessSpec, least_side, preprocess

# The pixels of a larger picture are made for every model at once, so that the picture itself can go. Those of a smaller
# one are made for the second stage only where it is asked, which most pictures never need.
_SMALL = 500_000  # pixels


class View:
    """A decoded picture whose pixels for a model are made once, in whichever thread asks first.

    A service makes them beside the request, so that the models' thread finds them ready.
    """

    def __init__(self, picture: Image.Image, reduced: dict[int, Image.Image] | None = None) -> None:
        self._picture: Image.Image | None = picture
        self._reduced = reduced or {}
        self._seen: dict[PreprocessSpec, np.ndarray] = {}

    def pixels(self, spec: PreprocessSpec) -> np.ndarray:
        """Return what :func:`cascade.images.preprocess.preprocess` makes of the picture, uint8 (size, size, 3)."""
        if spec not in self._seen:
            assert self._picture is not None  # settle() was told of every spec that is asked for
            self._seen[spec] = preprocess(self._reduced.get(least_side(spec), self._picture), spec)
        return self._seen[spec]

    def preview(self, side: int) -> Image.Image:
        """Return the picture at no more than ``side`` pixels a side."""
        assert self._picture is not None
        return ImageOps.contain(self._picture, (side, side)) if max(self._picture.size) > side else self._picture

    def prepare(self, first: PreprocessSpec, specs: Iterable[PreprocessSpec]) -> None:
        """Make the pixels for the first model; where the picture is large also all others, and let go of it."""
        assert self._picture is not None
        self.pixels(first)
        if self._picture.width * self._picture.height > _SMALL:
            self.settle(specs)

    def settle(self, specs: Iterable[PreprocessSpec]) -> None:
        """Make the pixels of all these specs now and let go of the picture, which may be a thousand times larger."""
        for spec in specs:
            self.pixels(spec)
        self._picture = None
        self._reduced = {}


def see(source: Source, specs: Iterable[PreprocessSpec], max_pixels: int = MAX_PIXELS) -> View:
    """Decode a picture for models with these specs: each sees the same pixels as when it is the only one.

    Raises
    ------
    PictureError
        The picture cannot be decoded (see :func:`cascade.images.decoding.decode`).
    """
    sides = sorted({least_side(spec) for spec in specs})
    reduced = {side: decode(source, max_pixels, side) for side in sides}
    return View(reduced[sides[-1]], reduced)
