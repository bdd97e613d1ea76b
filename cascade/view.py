"""A view: a decoded picture together with the pixels that models see of it."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from cascade.preprocess import PreprocessSpec, preprocess


class View:
    """A decoded picture whose pixels for a model are made once, in whichever thread asks first.

    A service makes them beside the request, so that the models' thread finds them ready.
    """

    def __init__(self, picture: Image.Image) -> None:
        self._picture: Image.Image | None = picture
        self._seen: dict[PreprocessSpec, np.ndarray] = {}

    def pixels(self, spec: PreprocessSpec) -> np.ndarray:
        """Return what :func:`cascade.preprocess.preprocess` makes of the picture, uint8 (size, size, 3)."""
        if spec not in self._seen:
            assert self._picture is not None  # settle() was told of every spec that is asked for
            self._seen[spec] = preprocess(self._picture, spec)
        return self._seen[spec]

    def settle(self, specs: Iterable[PreprocessSpec]) -> None:
        """Make the pixels of all these specs now and let go of the picture, which may be a thousand times larger."""
        for spec in specs:
            self.pixels(spec)
        self._picture = None
