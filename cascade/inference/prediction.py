"""The answer about one picture."""

from dataclasses import dataclass
from typing import Literal

Stage = Literal["main", "submodels"]


@dataclass(frozen=True)
class Prediction:
    """The two most likely classes of a picture, most likely first, with calibrated probabilities in [0, 1].

    ``stage`` is the stage that decided; ``unsure`` is set if the picture is unlike the training pictures, or if it was
    routed and no submodel recognised it. ``both`` is set if the picture shows both classes; it is never set with
    ``unsure``. ``accepted`` is set if answers like this one are right at the rate that the bundle promises, and None
    where it promises none; an unsure answer is never accepted.
    """

    label_1: str
    probability_1: float
    label_2: str
    probability_2: float
    stage: Stage
    unsure: bool
    both: bool
    accepted: bool | None
