"""Label issues: training pictures that probably have the wrong label, found by confident learning."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class LabelIssue:
    """A picture whose label is doubted by a model that was not trained on it, with the class that it predicts."""

    path: Path
    label: str
    likely: str
    probability: float
    probability_of_label: float


def likely_label_errors(
    paths: Sequence[Path], targets: np.ndarray, out_of_fold: np.ndarray, classes: Sequence[str]
) -> list[LabelIssue]:
    """Return the likely label errors as cleanlab finds them, the least probable label first.

    Parameters
    ----------
    targets
        The labels as given, (N,).
    out_of_fold
        Probabilities (N, K) of models that were not trained on the picture in question.

    Notes
    -----
    Confident learning (Northcutt, Jiang and Chuang, arXiv 1911.00068), by cleanlab's own defaults: pruned by noise
    rate, ranked by self-confidence.
    """
    from cleanlab.filter import find_label_issues

    found = find_label_issues(targets, out_of_fold, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [
        LabelIssue(
            paths[index],
            classes[targets[index]],
            classes[int(out_of_fold[index].argmax())],
            float(out_of_fold[index].max()),
            float(out_of_fold[index, targets[index]]),
        )
        for index in found
    ]
