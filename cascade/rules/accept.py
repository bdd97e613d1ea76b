"""Accepted answers: those that are right at a promised rate, so that nobody need look at them."""

from typing import Annotated

import msgspec
import numpy as np


class Accept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer is accepted if its first probability is at or above the threshold and it is not marked unsure.

    Accepted answers are right in at least ``accuracy`` of the cases, with this ``confidence``, about pictures like
    those that the threshold was fitted on: ``accepted`` of those ``pictures`` were, ``mistakes`` of them wrongly.
    """

    threshold: Annotated[float, msgspec.Meta(gt=0, le=1)]
    accuracy: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    confidence: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    pictures: Annotated[int, msgspec.Meta(gt=0)]
    accepted: Annotated[int, msgspec.Meta(gt=0)]
    mistakes: Annotated[int, msgspec.Meta(ge=0)]

    def accepts(self, probabilities: np.ndarray, unsure: np.ndarray) -> np.ndarray:
        """Return which answers are accepted, (N,) bool, from final probabilities (N, K) and marks (N,) bool."""
        return (probabilities.max(axis=1) >= self.threshold) & ~unsure
