"""The stress test: a bundle's accuracy on labelled pictures that were made worse, by kind and strength."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cascade.evaluation.evaluation import joined, targets_of
from cascade.evaluation.metrics import accuracy_summary
from cascade.images.degradations import DEGRADATIONS, STRENGTHS
from cascade.images.preprocess import least_size
from cascade.images.unreadable import decoded
from cascade.images.view import View
from cascade.inference.engine import Engine
from cascade.rules.cascade import CascadeOutput
from cascade.threads import BATCH_SIZE, batches, in_order

Case = tuple[str, int]  # kind, strength
STAGES = ("main", "cascade")


@dataclass(frozen=True)
class Stress:
    """The output of a cascade about the same N pictures under each kind and strength."""

    targets: np.ndarray  # (N,)
    outputs: Mapping[Case, CascadeOutput]

    def report(self) -> dict[str, Any]:
        """Return the figures as plain data: each kind and strength, the means over the kinds, and the worst."""
        figures = {case: self._figures(output) for case, output in self.outputs.items()}
        kinds = list(dict.fromkeys(kind for kind, _ in figures))
        worst = min(figures, key=lambda case: figures[case]["cascade"]["top1"])
        return {
            "kinds": {kind: {str(strength): figures[kind, strength] for strength in STRENGTHS} for kind in kinds},
            "mean": {
                str(strength): {stage: _mean([figures[kind, strength][stage] for kind in kinds]) for stage in STAGES}
                for strength in STRENGTHS
            },
            "worst": {"kind": worst[0], "strength": worst[1], "cascade": figures[worst]["cascade"]},
        }

    def _figures(self, output: CascadeOutput) -> dict[str, dict[str, Any]]:
        return {
            "main": accuracy_summary(output.main_alone, self.targets),
            "cascade": accuracy_summary(output.probabilities, self.targets),
        }


def stress(
    engine: Engine,
    paths: Iterable[Path],
    labels: Sequence[str],
    kinds: Sequence[str] = tuple(DEGRADATIONS),
    workers: int = 1,
) -> Stress:
    """Run the cascade over pictures under each of ``kinds`` at each strength.

    What chance decides about a picture (a direction, a side, the grains of noise) depends on its pixels and the kind
    alone, and is the same for every strength. ``workers`` batches are processed in parallel.

    Raises
    ------
    CanonistiaError
        A picture cannot be read.
    """

    least = max(map(least_size, engine.specs))

    def run(batch: Sequence[Path]) -> dict[Case, CascadeOutput]:
        pictures = [decoded(path, least) for path in batch]
        return {case: engine.run([View(picture) for picture in worse]) for case, worse in _degraded(pictures, kinds)}

    parts = list(in_order(run, batches(paths, BATCH_SIZE), workers))
    return Stress(targets_of(engine, labels), {case: joined([part[case] for part in parts]) for case in parts[0]})


def _degraded(pictures: Sequence[Image.Image], kinds: Sequence[str]) -> Iterator[tuple[Case, list[Image.Image]]]:
    seeds = [zlib.crc32(picture.tobytes()) for picture in pictures]
    for kind in kinds:
        for strength in STRENGTHS:
            chances = [np.random.default_rng([seed, zlib.crc32(kind.encode())]) for seed in seeds]
            yield (
                (kind, strength),
                [DEGRADATIONS[kind](picture, strength, rng) for picture, rng in zip(pictures, chances, strict=True)],
            )


def _mean(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of each figure; an interval's ends are the means of the ends.

    The kinds share their pictures, so their errors do not cancel out: the mean's interval is no narrower than theirs.
    """
    return {name: np.mean([one[name] for one in figures], axis=0).tolist() for name in figures[0]}
