"""The mark both: the picture shows both classes that its answer names.

To add a quantity, write a function and add it to :data:`QUANTITIES`. Every quantity is fitted when a rule is.

Array names: ``main`` is the main model's calibrated probabilities (N, K); ``submodels`` the calibrated answers to
"is it this class?" (N, K), NaN where a submodel was not asked; ``named`` the two classes of each answer (N, 2);
``another`` the evidence of another class in a part of each picture (N,), None where the main model gives no maps.
"""

from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec
import numpy as np

from cascade.rules.another_class import given
from cascade.rules.probabilities import TINY, log_odds

Quantity = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

_MOST_ODDS = 10.0  # beyond e^10 to one, differences of float32 probabilities are rounding


def first_submodel(main: np.ndarray, submodels: np.ndarray, named: np.ndarray) -> np.ndarray:
    """Return the log odds of the submodel of the first class named, (N,)."""
    return _odds_of(submodels, named[:, 0])


def second_submodel(main: np.ndarray, submodels: np.ndarray, named: np.ndarray) -> np.ndarray:
    """Return the log odds of the submodel of the second class named, (N,)."""
    return _odds_of(submodels, named[:, 1])


def other_submodels(main: np.ndarray, submodels: np.ndarray, named: np.ndarray) -> np.ndarray:
    """Return the highest log odds of the submodels of all other classes that were asked about, (N,)."""
    others = submodels.copy()
    np.put_along_axis(others, named, np.nan, axis=1)
    return _bounded(log_odds(np.where(np.isnan(others), 0, others).max(axis=1)))


def main_gap(main: np.ndarray, submodels: np.ndarray, named: np.ndarray) -> np.ndarray:
    """Return the difference of the main model's two highest logits after calibration, (N,)."""
    two = np.sort(main.astype(np.float64), axis=1)[:, -2:]  # (N, 2)
    return np.log(two[:, 1]) - np.log(np.maximum(two[:, 0], TINY))


QUANTITIES: Mapping[str, Quantity] = {
    one.__name__: one for one in (first_submodel, second_submodel, other_submodels, main_gap)
}


ANOTHER_CLASS = "another_class"  # the quantity that is the evidence of another class itself


class Both(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When an answer is marked both: a weighted sum of quantities is at or above the threshold.

    They are ``QUANTITIES`` and ``ANOTHER_CLASS``.

    Only routed pictures whose two named classes were asked about can be marked. The threshold is fitted so that at most
    ``false_mark_rate`` of the validation pictures, each of which shows one class, are marked.
    """

    weights: dict[str, float]
    threshold: float
    false_mark_rate: Annotated[float, msgspec.Meta(ge=0, lt=1)]

    def check(self) -> None:
        """Raise ValueError unless every weight is of a known quantity."""
        known = (*QUANTITIES, ANOTHER_CLASS)
        if unknown := sorted(set(self.weights) - set(known)):
            raise ValueError(f"the rule for both weighs {', '.join(unknown)}, expected {', '.join(known)}")

    @property
    def needs_maps(self) -> bool:
        """Return whether the rule asks for the evidence of another class, for which there must be activation maps."""
        return ANOTHER_CLASS in self.weights

    def margin(
        self, main: np.ndarray, submodels: np.ndarray, named: np.ndarray, another: np.ndarray | None = None
    ) -> np.ndarray:
        """Return by how much each picture's score exceeds the threshold, (N,); -inf where it cannot be marked."""
        asked = both_asked(submodels, named)  # (N,)
        evidence = given(another)[asked] if self.needs_maps else None
        found = quantities(main[asked], submodels[asked], named[asked], evidence)
        score = np.zeros(int(asked.sum()))
        for name, weight in self.weights.items():
            score += weight * found[name]
        margin = np.full(len(main), -np.inf)
        margin[asked] = score - self.threshold
        return margin


def both_asked(submodels: np.ndarray, named: np.ndarray) -> np.ndarray:
    """Return of which pictures the submodels of both named classes were asked, (N,) bool."""
    return ~np.isnan(np.take_along_axis(submodels, named, axis=1)).any(axis=1)


def quantities(
    main: np.ndarray, submodels: np.ndarray, named: np.ndarray, another: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return every quantity (N,) that is known by its name, for pictures whose two named classes were asked about."""
    found = {name: quantity(main, submodels, named) for name, quantity in QUANTITIES.items()}
    return found if another is None else {**found, ANOTHER_CLASS: another}


def _odds_of(submodels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return _bounded(log_odds(np.take_along_axis(submodels, classes[:, None], axis=1)[:, 0]))


def _bounded(odds: np.ndarray) -> np.ndarray:
    return np.clip(odds, -_MOST_ODDS, _MOST_ODDS)
