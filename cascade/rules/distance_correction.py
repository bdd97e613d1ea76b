"""The distance that the rules use: the one from the classes, corrected by the energy of the main model's logits."""

from typing import Annotated

import msgspec
import numpy as np

from cascade.rules.probabilities import logsumexp


class DistanceCorrection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much farther a picture counts whose logits have little energy (logsumexp; Liu et al., arXiv 2010.03759).

    The distance sees what is unlike the training pictures, and the energy what is like no class: pictures of a class
    that training never had are found best by both. At the ``energy`` of the median picture the distance stays.
    """

    energy: float
    weight: Annotated[float, msgspec.Meta(ge=0)]

    def corrected(self, distance: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return distances (N,) corrected by logits (N, K), positive."""
        missing = self.energy - logsumexp(logits)  # (N,)
        corrected: np.ndarray = distance * np.exp(self.weight * missing)
        return corrected


AS_MEASURED = DistanceCorrection(energy=0.0, weight=0.0)  # in bundles that have none
