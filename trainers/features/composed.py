"""Features of composed training pictures, on which submodels learn that a picture may show two classes.

The number of them is ``SHARE`` times that of the training pictures. Each counts as much as a training picture does in
the mean; of one submodel, those that show its class and those that do not have the same total weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cascade.images.preprocess import PreprocessSpec, least_size
from trainers.data.composed import WAYS, draw_pairs, parents_of
from trainers.data.examples import Examples
from trainers.features.cache import cached_features
from trainers.features.made_pictures import composed_pictures
from trainers.networks.classifier import Classifier

SHARE = 1 / 6  # with more, heads separate pictures of one class less well (docs/experiments.md)


@dataclass(frozen=True)
class ComposedFeatures:
    """The features (C, D) of composed pictures, their two classes (C, 2), and the files that came first (C)."""

    features: torch.Tensor
    classes: np.ndarray
    firsts: list[Path]

    def examples(self, positive: int) -> Examples:
        """Return the pictures as examples of one class's submodel: targets 1 where the class is one of the two."""
        shows = (self.classes == positive).any(axis=1)  # (C,)
        half = len(shows) / 2
        weights = np.where(shows, half / max(1, shows.sum()), half / max(1, (~shows).sum()))
        return Examples(self.firsts, shows.astype(int), weights, np.full(len(shows), "", dtype=np.str_))


def composed_features(
    networks: Sequence[tuple[Classifier, PreprocessSpec]], training: Examples, device: str, workers: int, seed: int
) -> ComposedFeatures:
    """Return the features of several networks side by side for pictures composed of pairs of training pictures.

    The pairs depend on the training pictures and the seed alone, and their features are cached like all others. The
    ways of composing that are kept from training are not used.

    Raises
    ------
    CanonistiaError
        A picture cannot be read, or there is no room for temporary files.
    """
    pairs = draw_pairs(training.targets, round(SHARE * len(training.targets)), tuple(WAYS), seed)
    parents = parents_of(pairs)
    with composed_pictures(training.paths, pairs, max(least_size(spec) for _, spec in networks)) as files:
        parts = [cached_features(network, files, spec, device, workers) for network, spec in networks]
    firsts = [training.paths[index] for index in parents[:, 0]]
    return ComposedFeatures(torch.cat(parts, dim=1), training.targets[parents], firsts)
