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


def joined(first: Examples, second: Examples) -> Examples:
    """Return both examples as one, the second after the first."""
    return Examples(
        [*first.paths, *second.paths],
        np.concatenate([first.targets, second.targets]),
        np.concatenate([first.weights, second.weights]),
        np.concatenate([first.sources, second.sources]),
    )


def split_examples(data: DataSet) -> SplitExamples:
    """Return the training and validation pictures with their class indices.

    The weights are those of the data set, scaled to a mean of 1, so that a learning rate suits any of them.
    """

    def examples(pictures: tuple[LabelledPicture, ...]) -> Examples:
        sources = np.array([picture.source for picture in pictures], dtype=np.str_)
        weights = np.array([picture.weight for picture in pictures])
        paths = [picture.path for picture in pictures]
        return Examples(paths, data.targets(pictures), weights / weights.mean(), sources)

    return SplitExamples(examples(data.training), examples(data.validation))
