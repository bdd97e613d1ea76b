"""Examples: pictures with their targets and weights, as a training takes them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade.images.folders import LabelledPicture
from trainers.data.dataset import DataSet


@dataclass(frozen=True)
class Examples:
    """Pictures with their targets (N,), for training a weight each (N,), and the names of their sources (N,)."""

    paths: list[Path]
    targets: np.ndarray
    weights: np.ndarray
    sources: np.ndarray


@dataclass(frozen=True)
class SplitExamples:
    """The examples that a network is trained on, and those that it is validated on."""

    training: Examples
    validation: Examples


def split_examples(data: DataSet) -> SplitExamples:
    """Return the training and validation pictures with their class indices, all of weight 1."""

    def examples(pictures: tuple[LabelledPicture, ...]) -> Examples:
        sources = np.array([picture.source for picture in pictures], dtype=np.str_)
        return Examples([picture.path for picture in pictures], data.targets(pictures), np.ones(len(pictures)), sources)

    return SplitExamples(examples(data.training), examples(data.validation))
