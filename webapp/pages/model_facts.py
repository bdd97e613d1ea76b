"""The figures of a bundle that its page shows."""

from dataclasses import dataclass

import numpy as np

from cascade.bundle.manifest import Manifest

SHADES = 10


@dataclass(frozen=True)
class ClassFacts:
    """The figures of one class: number of pictures, how many were classified correctly, and the most frequent error.

    ``mistaken`` is the class most often given by mistake and how often; None if there was no mistake. ``pictures`` is 0
    if the bundle holds no confusion matrix.
    """

    label: str
    average_precision: float
    pictures: int = 0
    right: int = 0
    mistaken: tuple[str, int] | None = None


def class_facts(manifest: Manifest) -> list[ClassFacts]:
    """Return the figures of every class, in the order of the classes."""
    facts: list[ClassFacts] = []
    counts = np.array(manifest.measured.confusion)
    for index, submodel in enumerate(manifest.submodels):
        if not counts.size:
            facts.append(ClassFacts(submodel.label, submodel.average_precision))
            continue
        others = counts[index].copy()
        others[index] = 0
        worst = int(others.argmax())
        mistaken = (manifest.classes[worst], int(others[worst])) if others[worst] else None
        right, total = int(counts[index, index]), int(counts[index].sum())
        facts.append(ClassFacts(submodel.label, submodel.average_precision, total, right, mistaken))
    return facts


def of_hundred(share: float) -> int:
    """Return a share as so many of 100; 0 and 100 only where the share is exactly that."""
    return round(100 * share) if share in (0, 1) else min(99, max(1, round(100 * share)))


def shades(confusion: list[list[int]]) -> list[list[int]]:
    """Return the shade of each cell, 0 to ``SHADES``, by its share of the true class; 0 only for a count of 0."""
    counts = np.array(confusion, dtype=float)
    if not counts.size:
        return []
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    return np.ceil(SHADES * shares).astype(int).tolist()
