"""The cascade: which classes the submodels are asked about, and how the answers of both stages are combined.

Array names: ``main`` is the main model's calibrated probabilities (N, K); ``submodels`` the calibrated answers to
"is it this class?" (N, K), NaN where a submodel was not asked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from cascade.rules.accept import Accept
from cascade.rules.both import Both
from cascade.rules.decision import Decision, decide
from cascade.rules.distance_calibration import EVERYWHERE_ALIKE, DistanceCalibration, soften
from cascade.rules.probabilities import top_two
from cascade.rules.routing import Routing
from cascade.rules.unsure import Unsure


class CascadeRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rules of one bundle, fitted on validation pictures."""

    routing: Routing
    candidates: Annotated[int, msgspec.Meta(ge=2)]  # how many of the main model's most likely classes are asked about
    decision: Decision
    unsure: Unsure
    distance_calibration: DistanceCalibration = EVERYWHERE_ALIKE
    both: Both | None = None  # without it no answer is marked both
    accept: Accept | None = None  # without it nothing is said about which answers are accepted

    def check(self, classes: int) -> None:
        """Raise ValueError unless the rules fit this number of classes."""
        if self.candidates > classes:
            raise ValueError(f"{self.candidates} classes are asked about, and there are {classes}")
        self.routing.check(classes)
        if self.both:
            self.both.check()

    @property
    def needs_maps(self) -> bool:
        """Return whether a rule asks for the evidence of another class, for which there must be activation maps."""
        return self.routing.needs_maps or (self.both is not None and self.both.needs_maps)


@dataclass(frozen=True)
class CascadeOutput:
    """The answers of both stages about N pictures, K classes."""

    main: np.ndarray  # (N, K) calibrated probabilities of the main model, whatever the distance
    submodels: np.ndarray  # (N, K) calibrated answers of the submodels, NaN where not asked
    probabilities: np.ndarray  # (N, K) the final probabilities
    routed: np.ndarray  # (N,) bool
    doubt: np.ndarray  # (N,) how unlike a known class; above 1 the answer is marked unsure
    temperature: np.ndarray  # (N,) of the final probabilities: 1, and more for pictures unlike those of training
    both_margin: np.ndarray  # (N,) from the threshold of the rule for both; -inf where it does not apply
    accepted: np.ndarray  # (N,) bool; False everywhere where the rules have no threshold

    @property
    def main_alone(self) -> np.ndarray:
        """Return the probabilities that the main model alone would give, (N, K)."""
        return soften(self.main, self.temperature)

    @property
    def unsure(self) -> np.ndarray:
        """Return which answers are marked unsure, (N,) bool."""
        return self.doubt > 1

    @property
    def both(self) -> np.ndarray:
        """Return which answers are marked both, (N,) bool; none of them is marked unsure."""
        return (self.both_margin >= 0) & ~self.unsure


def run_cascade(
    rules: CascadeRules,
    main: np.ndarray,
    distance: np.ndarray,
    ask: Callable[[np.ndarray, np.ndarray], np.ndarray],
    another: np.ndarray | None = None,
) -> CascadeOutput:
    """Return the cascade's output, given the main model's probabilities (N, K) and distances (N,).

    ``another`` (N,) is the evidence of another class in a part of each picture, where a rule needs it.

    ``ask`` is called once, if any picture is routed, with the indices (M,) of the routed pictures and the classes
    asked about (M, K) bool; it returns the submodels' answers (M, K), NaN where not asked.
    """
    routed = rules.routing.route(main, another)
    submodels = np.full(main.shape, np.nan, dtype=np.float64)
    final = main.astype(np.float64)
    indices = np.flatnonzero(routed)
    if indices.size:
        submodels[indices] = ask(indices, candidate_classes(main[indices], rules.candidates))
        final[indices] = decide(rules.decision, final[indices], submodels[indices])
    doubt = rules.unsure.score(distance, submodels)
    temperature = rules.distance_calibration.temperature(distance)
    unsure = doubt > 1
    final = rules.unsure.limited(soften(final, temperature), unsure)
    no_margin, none_accepted = np.full(len(main), -np.inf), np.zeros(len(main), dtype=bool)
    return CascadeOutput(
        main=main,
        submodels=submodels,
        probabilities=final,
        routed=routed,
        doubt=doubt,
        temperature=temperature,
        both_margin=rules.both.margin(main, submodels, top_two(final), another) if rules.both else no_margin,
        accepted=rules.accept.accepts(final, unsure) if rules.accept else none_accepted,
    )


def known_answers(answers: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return an ``ask`` for :func:`run_cascade` that looks up known answers (N, K)."""
    return lambda indices, asked: np.where(asked, answers[indices], np.nan)


def candidate_classes(main: np.ndarray, count: int) -> np.ndarray:
    """Return which classes are asked about: the ``count`` most likely classes of each picture, (N, K) bool."""
    order = np.argsort(-main, axis=1, kind="stable")[:, :count]  # (N, count)
    asked = np.zeros(main.shape, dtype=bool)
    np.put_along_axis(asked, order, True, axis=1)
    return asked
