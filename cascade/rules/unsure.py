"""The mark unsure: the picture is unlike those of training, or no submodel recognises it."""

from typing import Annotated

import msgspec
import numpy as np


class Unsure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When an answer is marked: the picture is unlike the training pictures, or no submodel recognises it.

    Both limits are fitted so that together they mark ``false_alarm_rate`` of the validation pictures, all of which
    are of a known class.
    """

    distance_above: Annotated[float, msgspec.Meta(gt=0)]
    submodels_below: Annotated[float, msgspec.Meta(ge=0, lt=1)]  # the highest answer, where submodels were asked
    false_alarm_rate: Annotated[float, msgspec.Meta(ge=0, lt=1)]

    def score(self, distance: np.ndarray, submodels: np.ndarray) -> np.ndarray:
        """Return how doubtful each picture is, (N,); above 1 it is marked.

        ``distance`` (N,) is the main model's; ``submodels`` (N, K) holds NaN where not asked.
        """
        refused = (1 - best_answers(submodels)) / (1 - self.submodels_below)
        return np.maximum(distance / self.distance_above, refused)


def best_answers(submodels: np.ndarray) -> np.ndarray:
    """Return the highest answer about each picture (N,), of answers (N, K) with NaN where not asked; 1 if none was."""
    asked = ~np.isnan(submodels).all(axis=1)  # (N,)
    return np.where(asked, np.where(np.isnan(submodels), 0, submodels).max(axis=1), 1)
