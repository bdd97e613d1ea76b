"""Calibration by distance: probabilities that soften for pictures unlike those of training."""

from typing import Annotated

import msgspec
import numpy as np

from cascade.rules.probabilities import TINY


class DistanceCalibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A temperature of the final probabilities that grows with a picture's distance from the classes.

    It is 1 up to the distance ``start``, and grows by ``slope`` per unit of ``start`` beyond. One constant temperature
    is right for pictures like those that it was fitted on; farther ones are named wrongly more often at the same
    confidence (density-aware calibration, Tomani et al., arXiv 2302.05118). The order of the classes stays.
    """

    start: Annotated[float, msgspec.Meta(gt=0)]
    slope: Annotated[float, msgspec.Meta(ge=0)]

    def temperature(self, distance: np.ndarray) -> np.ndarray:
        """Return the temperature of each picture, (N,), 1 or more, from its distance (N,)."""
        return 1 + self.slope * np.maximum(distance / self.start - 1, 0)


def soften(probabilities: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """Return probabilities (N, K) with the temperature of each picture (N,) applied to their logarithms.

    What is below ``TINY`` counts as ``TINY``: a high temperature would turn the rounding of such numbers into shares.
    """
    powered = np.maximum(probabilities, TINY) ** (1 / temperature)[:, None]
    softened: np.ndarray = powered / powered.sum(axis=1, keepdims=True)
    return np.where(temperature[:, None] == 1, probabilities, softened)


EVERYWHERE_ALIKE = DistanceCalibration(start=1.0, slope=0.0)  # before it is fitted, and in bundles that have none
