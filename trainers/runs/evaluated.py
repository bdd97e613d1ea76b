"""A trained network's results on its validation pictures: confusion, precision and recall, the worst mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support


@dataclass(frozen=True)
class ClassFigures:
    """Precision and recall of one class, with the number of its pictures."""

    label: str
    precision: float
    recall: float
    pictures: int


@dataclass(frozen=True)
class Mistake:
    """A picture that was classified as another class, with the probabilities of both."""

    path: Path
    label: str
    predicted: str
    probability: float
    probability_of_label: float


@dataclass(frozen=True)
class Evaluated:
    """Pictures with their targets (N,) and the network's probabilities (N, K)."""

    paths: Sequence[Path]
    targets: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]

    @property
    def predicted(self) -> np.ndarray:
        """Return the most likely class of each picture, (N,)."""
        return self.probabilities.argmax(axis=1)

    def confusion(self) -> np.ndarray:
        """Return counts (K, K), true classes in rows."""
        return confusion_matrix(self.targets, self.predicted, labels=np.arange(len(self.classes)))

    def by_class(self) -> list[ClassFigures]:
        """Return the figures of each class."""
        figures = precision_recall_fscore_support(
            self.targets, self.predicted, labels=np.arange(len(self.classes)), zero_division=0
        )
        return [
            ClassFigures(label, float(precision), float(recall), int(pictures))
            for label, precision, recall, _, pictures in zip(self.classes, *figures, strict=True)
        ]

    def mistakes(self, most: int) -> list[Mistake]:
        """Return at most ``most`` mistakes, those with the highest confidence first."""
        every = np.arange(len(self.targets))
        margins = self.probabilities[every, self.predicted] - self.probabilities[every, self.targets]  # (N,)
        order = np.argsort(-margins, kind="stable")
        worst = [index for index in order if self.predicted[index] != self.targets[index]]
        return [
            Mistake(
                self.paths[index],
                self.classes[self.targets[index]],
                self.classes[self.predicted[index]],
                float(self.probabilities[index].max()),
                float(self.probabilities[index, self.targets[index]]),
            )
            for index in worst[:most]
        ]

    def confused_pairs(self, most: int) -> list[tuple[str, str, int]]:
        """Return the ``most`` pairs of classes that are confused most, each with its number of pictures."""
        matrix = self.confusion()
        both = matrix + matrix.T
        pairs = [
            (self.classes[first], self.classes[second], int(both[first, second]))
            for first, second in zip(*np.triu_indices(len(self.classes), 1), strict=True)
            if both[first, second]
        ]
        return sorted(pairs, key=lambda pair: -pair[2])[:most]
