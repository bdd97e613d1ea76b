"""Facts of a bundle as its page shows them."""

from dataclasses import dataclass

import numpy as np

from cascade.bundle.manifest import Manifest

SHADES = 10


@dataclass(frozen=True)
class ClassFacts:
    """How one class fared: pictures of it, how many were right, what it was most often taken for.

    ``mistaken`` is that class and how often, None where it never was; ``pictures`` is 0 where the bundle holds no
    confusion matrix.
    """

    label: str
    average_precision: float
    pictures: int = 0
    right: int = 0
    mistaken: tuple[str, int] | None = None


def class_facts(manifest: Manifest) -> list[ClassFacts]:
    """Return the facts of every class, in the order of the classes."""
    facts: list[ClassFacts] = []
    counts = np.array(manifest.measured.confusion)
    for row, submodel in enumerate(manifest.submodels):
        if not counts.size:
            facts.append(ClassFacts(submodel.label, submodel.average_precision))
            continue
        others = counts[row].copy()
        others[row] = 0
        worst = int(others.argmax())
        mistaken = (manifest.classes[worst], int(others[worst])) if others[worst] else None
        right, total = int(counts[row, row]), int(counts[row].sum())
        facts.append(ClassFacts(submodel.label, submodel.average_precision, total, right, mistaken))
    return facts


def shades(confusion: list[list[int]]) -> list[list[int]]:
    """Return the shade of every cell, 0 to ``SHADES``, by its share of the true class; a cell that counts has one."""
    counts = np.array(confusion, dtype=float)
    if not counts.size:
        return []
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    return np.ceil(SHADES * shares).astype(int).tolist()
