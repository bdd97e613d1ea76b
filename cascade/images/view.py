"""A view: a decoded picture together with the models' inputs made of it."""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from cascade.images.decoding import MAX_PIXELS, Source, decode
from cascade.images.preprocess import PreprocessSpec, least_size, preprocess

# For a larger picture the inputs of all models are made at once, so that the picture can be freed. For a smaller
# picture those of the second stage are made only when it is asked, which most pictures never need.
_SMALL = 500_000  # pixels


class View:
    """A decoded picture; the input of each model is made once, in the first thread that needs it.

    A service makes the inputs in the thread of the request, so that they are ready for the thread of the models.
    """

    def __init__(self, picture: Image.Image, reduced: dict[int, Image.Image] | None = None) -> None:
        self._picture: Image.Image | None = picture
        self._reduced = reduced or {}
        self._seen: dict[PreprocessSpec, np.ndarray] = {}

    def pixels(self, spec: PreprocessSpec) -> np.ndarray:
        """Return the picture preprocessed (:func:`cascade.images.preprocess.preprocess`), uint8 (size, size, 3)."""
        if spec not in self._seen:
            assert self._picture is not None  # settle() was given every spec that is used later
            self._seen[spec] = preprocess(self._reduced.get(least_size(spec), self._picture), spec)
        return self._seen[spec]

    def preview(self, size: int) -> Image.Image:
        """Return the picture with a width and height of at most ``size`` pixels."""
        assert self._picture is not None
        return ImageOps.contain(self._picture, (size, size)) if max(self._picture.size) > size else self._picture

    def prepare(self, first: PreprocessSpec, specs: Iterable[PreprocessSpec]) -> None:
        """Make the first model's input; if the picture is large, make all inputs and free the picture."""
        assert self._picture is not None
        self.pixels(first)
        if self._picture.width * self._picture.height > _SMALL:
            self.settle(specs)

    def settle(self, specs: Iterable[PreprocessSpec]) -> None:
        """Make the inputs for all these specs now and free the picture, which may be a thousand times larger."""
        for spec in specs:
            self.pixels(spec)
        self._picture = None
        self._reduced = {}


def see(source: Source, specs: Iterable[PreprocessSpec], max_pixels: int = MAX_PIXELS) -> View:
    """Decode a picture for models with these specs; each gets the same pixels as if it were the only model.

    Raises
    ------
    PictureError
        The picture cannot be decoded (see :func:`cascade.images.decoding.decode`).
    """
    sizes = sorted({least_size(spec) for spec in specs})
    reduced = {size: decode(source, max_pixels, size) for size in sizes}
    return View(reduced[sizes[-1]], reduced)
