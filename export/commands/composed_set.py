"""The composed set: what a bundle says about pictures that are known to show two classes, because they were made so."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cascade.evaluation.evaluation import run_all, targets_of
from cascade.evaluation.pairs import pair_figures
from cascade.images.folders import LabelledPicture
from cascade.images.preprocess import least_size
from cascade.inference.engine import Engine
from trainers.data.composed import UNSEEN_WAYS, WAYS, draw_pairs, parents_of
from trainers.features.made_pictures import composed_pictures

PER_WAY = 200  # pictures
_SEED = 0


def composed_figures(engine: Engine, pictures: Sequence[LabelledPicture], workers: int) -> dict[str, dict[str, Any]]:
    """Return the figures of :func:`cascade.evaluation.pairs.pair_figures` by the way in which pictures are composed.

    Each way composes ``PER_WAY`` pairs of the pictures, or as many as there are pictures, drawn by a fixed seed. The
    ways that nothing was fitted on are among them. Empty if all pictures are of one class.

    Raises
    ------
    CanonistiaError
        A picture cannot be read, or there is no room for temporary files.
    """
    targets = targets_of(engine, [picture.label for picture in pictures])
    if len(np.unique(targets)) < 2:
        return {}
    paths = [picture.path for picture in pictures]
    least = max(map(least_size, engine.specs))
    figures = {}
    for way in (*WAYS, *UNSEEN_WAYS):
        pairs = draw_pairs(targets, min(PER_WAY, len(targets)), (way,), _SEED)
        with composed_pictures(paths, pairs, least) as files:
            figures[way] = pair_figures(run_all(engine, files, workers), targets[parents_of(pairs)])
    return figures
