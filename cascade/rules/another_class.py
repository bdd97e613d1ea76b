"""Evidence of another class in a part of a picture, which two environments leave however sure the answer is."""

import numpy as np

_PARTS = 8  # of all places; the strongest part counts


def another_class(maps: np.ndarray) -> np.ndarray:
    """Return by how much another class exceeds the picture's first in some places, (N,), from maps (N, K, h, w).

    The maps are the main model's evidence at each place, before the mean over all places makes them logits and the
    softmax lets the first class win. At each place the strongest other class is compared with the picture's first
    class; the result is the mean difference over that eighth of the places where it is highest, in logits before
    calibration. It is positive if another class wins there.
    """
    count, classes, height, width = maps.shape
    places = maps.reshape(count, classes, height * width)  # (N, K, P)
    first = places.mean(axis=2).argmax(axis=1)[:, None, None]  # (N, 1, 1)
    others = places.copy()
    np.put_along_axis(others, first, -np.inf, axis=1)
    excess = others.max(axis=1) - np.take_along_axis(places, first, axis=1)[:, 0]  # (N, P)
    strongest = max(1, round(height * width / _PARTS))
    found: np.ndarray = np.sort(excess, axis=1)[:, -strongest:].mean(axis=1)
    return found


def given(another: np.ndarray | None) -> np.ndarray:
    """Return the evidence of another class; ValueError where a rule needs it and the main model gives no maps."""
    if another is None:
        raise ValueError("a rule needs the evidence of another class, and the main model gives no activation maps")
    return another
