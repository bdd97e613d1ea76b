"""The logits of both stages for labelled pictures, and the folds that rules are fitted and judged on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold

from cascade.errors import CanonistiaError
from export.fitting.calibration import Calibrators
from trainers.data.dataset import FEWEST_VALIDATION

FOLDS = 5


@dataclass(frozen=True)
class StageLogits:
    """Logits of both stages (N, K) and the main model's distances (N,), for pictures of known class (N,).

    ``another`` (N,) is the evidence of another class, where the main model has activation maps. ``shifted`` are the
    logits of the same pictures made worse, in the same order, where they are known; ``composed`` those of pairs.
    """

    main: np.ndarray
    distance: np.ndarray
    submodels: np.ndarray
    targets: np.ndarray
    another: np.ndarray | None = None
    shifted: "StageLogits | None" = None
    composed: "ComposedLogits | None" = None

    def take(self, indices: np.ndarray) -> "StageLogits":
        """Return the logits of some pictures, of their shifted copies, and of pairs that are composed of them alone."""
        return StageLogits(
            self.main[indices],
            self.distance[indices],
            self.submodels[indices],
            self.targets[indices],
            None if self.another is None else self.another[indices],
            self.shifted and self.shifted.take(indices),
            self.composed and self.composed.among(indices, len(self.targets)),
        )

    def with_copies(self) -> "StageLogits":
        """Return the logits of the pictures, followed by those of their shifted copies."""
        if self.shifted is None:
            return self
        parts = (self, self.shifted)
        return StageLogits(
            np.concatenate([part.main for part in parts]),
            np.concatenate([part.distance for part in parts]),
            np.concatenate([part.submodels for part in parts]),
            np.concatenate([part.targets for part in parts]),
            _all_or_none([part.another for part in parts]),
        )

    def calibrated(self, calibrators: Calibrators) -> "Stages":
        """Return the logits as calibrated probabilities."""
        distance = calibrators.distance.corrected(self.distance, self.main)
        return Stages(
            calibrators.main(self.main), distance, calibrators.submodels(self.submodels), self.targets, self.another
        )


@dataclass(frozen=True)
class ComposedLogits:
    """Logits about M pictures, each composed of two of the N pictures, whose indices are ``parents`` (M, 2)."""

    logits: StageLogits  # whose targets are the classes of the first parents
    parents: np.ndarray

    def among(self, indices: np.ndarray, count: int) -> "ComposedLogits":
        """Return the logits of pictures composed of two of those at ``indices`` among all ``count`` pictures."""
        places = np.full(count, -1)
        places[indices] = np.arange(len(indices))
        parents = places[self.parents]  # (M, 2)
        kept = np.flatnonzero((parents >= 0).all(axis=1))
        return ComposedLogits(self.logits.take(kept), parents[kept])


@dataclass(frozen=True)
class Stages:
    """Calibrated probabilities of both stages (N, K), every submodel asked; corrected distances (N,), classes (N,).

    ``another`` (N,) is the evidence of another class, where the main model has activation maps.
    """

    main: np.ndarray
    distance: np.ndarray
    submodels: np.ndarray
    targets: np.ndarray
    another: np.ndarray | None = None


def _all_or_none(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def fold_indices(targets: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for each fold, the indices to fit on and the indices to judge on, stratified by class."""
    folds = min(FOLDS, int(np.bincount(targets).min()))
    return StratifiedKFold(folds, shuffle=True, random_state=seed).split(targets, targets)


def check_class_counts(targets: np.ndarray, classes: Sequence[str], where: str) -> None:
    """Raise CanonistiaError unless there are enough pictures of every class to fit and to measure."""
    counts = np.bincount(targets, minlength=len(classes))
    fewest = int(counts.argmin())
    if counts[fewest] < FEWEST_VALIDATION:
        raise CanonistiaError(
            f"{where} has {counts[fewest]} pictures of {classes[fewest]}; calibration and routing need at least "
            f"{FEWEST_VALIDATION} of every class; add pictures that are not trained on"
        )
