"""Suspects: training pictures that are probably under the wrong label, by confident learning."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class LabelIssue:
    """A picture whose label a model that has not seen it doubts, with the class it takes it for."""

    path: Path
    label: str
    likely: str
    probability: float
    probability_of_label: float


def likely_label_errors(
    paths: Sequence[Path], targets: np.ndarray, unseen: np.ndarray, classes: Sequence[str]
) -> list[LabelIssue]:
    """Return the likely label errors as cleanlab finds them, the least probable label first.

    Parameters
    ----------
    targets
        The labels as given, (N,).
    unseen
        Probabilities (N, K) of models that were not trained on the picture in question (out of fold).

    Notes
    -----
    Confident learning (Northcutt, Jiang and Chuang, arXiv 1911.00068), by cleanlab's own defaults: pruned by noise
    rate, ranked by self-confidence.
    """
    from cleanlab.filter import find_label_issues

    found = find_label_issues(targets, unseen, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [
        LabelIssue(
            paths[row],
            classes[targets[row]],
            classes[int(unseen[row].argmax())],
            float(unseen[row].max()),
            float(unseen[row, targets[row]]),
        )
        for row in found
    ]
