"""Evaluation: a bundle's accuracy on a tree of labelled pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascade.engine import Engine, decoded_batches, readable
from cascade.errors import CanonistiaError, PictureError
from cascade.folders import LabelledPicture, class_names, read_class_folders, split_folders
from cascade.metrics import accuracy_summary, confusion, top_k_hits, wilson_interval


@dataclass(frozen=True)
class Evaluation:
    """What both stages said about labelled pictures: N pictures, K classes."""

    engine: Engine
    targets: np.ndarray  # (N,)
    main: np.ndarray  # (N, K) calibrated probabilities of the main model
    probabilities: np.ndarray  # (N, K) of the cascade
    routed: np.ndarray  # (N,) bool
    unsure: np.ndarray  # (N,) bool

    def report(self) -> dict[str, Any]:
        """Return the figures as plain data; every accuracy comes with its 95% Wilson interval."""
        first, two = top_k_hits(self.probabilities, self.targets)
        classes = self.engine.classes
        return {
            "pictures": len(self.targets),
            "classes": list(classes),
            "main": accuracy_summary(self.main, self.targets),
            "cascade": accuracy_summary(self.probabilities, self.targets),
            "routed": float(self.routed.mean()),
            "unsure": float(self.unsure.mean()),
            "per_class": {
                label: _class_figures(first[self.targets == index], two[self.targets == index])
                for index, label in enumerate(classes)
            },
            "confusion": confusion(self.probabilities, self.targets).tolist(),
            "bundle": {"name": self.engine.bundle.manifest.name, "sha256": self.engine.bundle.sha256},
        }


def labelled_pictures(folder: Path, classes: tuple[str, ...]) -> list[LabelledPicture]:
    """Return the pictures of a folder of class folders, checked against a bundle's classes.

    Raises
    ------
    CanonistiaError
        The folder is a data set with splits, holds nothing, or has a class that the bundle does not know.
    """
    splits = split_folders(folder)
    if splits:
        choices = " or ".join(str(path) for path in splits.values())
        raise CanonistiaError(f"{folder} holds splits, not classes; evaluate one of them: {choices}")
    pictures = read_class_folders(folder)
    unknown = sorted(set(class_names(pictures)) - set(classes))
    if unknown:
        raise CanonistiaError(
            f"{folder} has classes that the bundle does not know: {', '.join(unknown)}; it knows {', '.join(classes)}"
        )
    return pictures


def evaluate(engine: Engine, paths: Iterable[Path], labels: Sequence[str]) -> Evaluation:
    """Run the cascade over pictures whose labels, in the same order, are among the bundle's classes.

    Raises
    ------
    CanonistiaError
        A picture cannot be read: a figure that passes it over in silence would not be the data set's.
    """
    index = {label: number for number, label in enumerate(engine.classes)}
    outputs = []
    for batch in decoded_batches(paths):
        for path, picture in batch:
            if isinstance(picture, PictureError):
                raise CanonistiaError(f"{path}: {picture}; remove it, or mend it, and evaluate again") from picture
        outputs.append(engine.run(readable(batch)))
    return Evaluation(
        engine,
        np.array([index[label] for label in labels]),
        np.concatenate([output.main for output in outputs]),
        np.concatenate([output.probabilities for output in outputs]),
        np.concatenate([output.routed for output in outputs]),
        np.concatenate([output.unsure for output in outputs]),
    )


def _class_figures(first: np.ndarray, two: np.ndarray) -> dict[str, Any]:
    total = len(first)
    if total == 0:
        return {"pictures": 0, "top1": None, "top1_interval": None, "top2": None, "top2_interval": None}
    return {
        "pictures": total,
        "top1": float(first.mean()),
        "top1_interval": wilson_interval(int(first.sum()), total),
        "top2": float(two.mean()),
        "top2_interval": wilson_interval(int(two.sum()), total),
    }
