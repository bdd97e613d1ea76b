"""Evaluation: a bundle's accuracy on labelled pictures."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from cascade.errors import CanonistiaError, PictureError
from cascade.evaluation.conformal import coverage_and_size
from cascade.evaluation.metrics import (
    ECE_BINS,
    SEED_GAP,
    accuracy_summary,
    area_under_roc,
    confusion,
    share_with_interval,
    top_k_hits,
    wilson_interval,
)
from cascade.images.folders import LabelledPicture
from cascade.images.layout import class_names, layout_of, read_class_folders
from cascade.images.manifest import is_listed
from cascade.images.manifest import labelled_pictures as all_labelled_pictures
from cascade.images.unreadable import unreadable
from cascade.images.view import View
from cascade.inference.engine import Engine, readable
from cascade.rules.cascade import CascadeOutput
from cascade.threads import BATCH_SIZE, batches, in_order


@dataclass(frozen=True)
class Evaluation:
    """The output of a cascade about labelled pictures: N pictures, K classes.

    ``out_of_distribution`` is its output about pictures that show none of the classes, if there are any. ``sources``
    names the collection of each picture, if the data set does.
    """

    engine: Engine
    targets: np.ndarray  # (N,)
    output: CascadeOutput
    out_of_distribution: CascadeOutput | None = None
    sources: tuple[str, ...] = ()

    @property
    def uncalibrated(self) -> np.ndarray:
        """Return the main model's probabilities before temperature scaling, (N, K)."""
        powered = self.output.main.astype(np.float64) ** self.engine.bundle.manifest.calibration.temperature
        return powered / powered.sum(axis=1, keepdims=True)

    def report(self) -> dict[str, Any]:
        """Return the figures as plain data; every accuracy comes with its 95% Wilson interval."""
        manifest = self.engine.bundle.manifest
        return {
            **self._figures(),
            "bundle": {"name": manifest.name, "sha256": self.engine.bundle.sha256},
            **({"sources": self._by_source()} if any(self.sources) else {}),
        }

    def _by_source(self) -> dict[str, dict[str, Any]]:
        names = np.array(self.sources)
        return {str(name): self._part(names == name)._figures() for name in np.unique(names)}

    def _part(self, chosen: np.ndarray) -> "Evaluation":
        """Return the evaluation of the pictures that are chosen, (N,) bool."""
        output = {field.name: getattr(self.output, field.name)[chosen] for field in fields(CascadeOutput)}
        return Evaluation(self.engine, self.targets[chosen], CascadeOutput(**output))

    def _figures(self) -> dict[str, Any]:
        output, classes, manifest = self.output, self.engine.classes, self.engine.bundle.manifest
        main, _ = top_k_hits(output.main, self.targets)
        first, two = top_k_hits(output.probabilities, self.targets)
        sets = {
            coverage: coverage_and_size(output.probabilities, self.targets, limit)
            for coverage, limit in manifest.prediction_sets.items()
        }
        return {
            "pictures": len(self.targets),
            "classes": list(classes),
            "main": accuracy_summary(output.main_alone, self.targets),
            "main_before_calibration": accuracy_summary(self.uncalibrated, self.targets),
            "cascade": accuracy_summary(output.probabilities, self.targets),
            "second_stage": {"gained": int((first & ~main).sum()), "lost": int((main & ~first).sum())},
            "ece_bins": ECE_BINS,
            "seed_gap": SEED_GAP,
            "routed": float(output.routed.mean()),
            "cost": 1 + float(output.routed.mean()) * manifest.second_stage_cost,
            "unsure": float(output.unsure.mean()),
            "both": float(output.both.mean()),
            **({"accepted": self._accepted_figures(first)} if manifest.rules.accept else {}),
            "answer_sets": {coverage: {"coverage": held, "mean_size": size} for coverage, (held, size) in sets.items()},
            **({"outside": self._detection_figures(self.out_of_distribution)} if self.out_of_distribution else {}),
            "per_class": {
                label: _class_figures(first[self.targets == index], two[self.targets == index])
                for index, label in enumerate(classes)
            },
            "confusion": confusion(output.probabilities, self.targets).tolist(),
        }

    def _accepted_figures(self, right: np.ndarray) -> dict[str, Any]:
        accepted = self.output.accepted
        return {
            "pictures": int(accepted.sum()),
            "mistakes": int((accepted & ~right).sum()),
            **share_with_interval("share", accepted),
            **share_with_interval("accuracy", right[accepted]),
        }

    def _detection_figures(self, other: CascadeOutput) -> dict[str, float]:
        return {
            "pictures": len(other.doubt),
            "unsure": float(other.unsure.mean()),
            "auroc_of_doubt": area_under_roc(self.output.doubt, other.doubt),
            "auroc_of_main_confidence": area_under_roc(
                -self.output.main_alone.max(axis=1), -other.main_alone.max(axis=1)
            ),
        }


def labelled_pictures(
    source: Path, classes: tuple[str, ...], splits: Sequence[str] = ("test", "validation")
) -> list[LabelledPicture]:
    """Return the pictures of a folder of class folders or of tables, checked against a bundle's classes.

    Of tables these are the rows of the first of ``splits`` that they have, or all rows where they have none of them.

    Raises
    ------
    CanonistiaError
        The folder has splits, there are no pictures, or one is of a class that the bundle does not know.
    """
    pictures = _of_tables(source, splits) if is_listed(source) else _of_folder(source)
    unknown = sorted(set(class_names(pictures)) - set(classes))
    if unknown:
        raise CanonistiaError(
            f"{source} has classes that the model does not know: {', '.join(unknown)}; it knows {', '.join(classes)}"
        )
    return pictures


def _of_folder(folder: Path) -> list[LabelledPicture]:
    layout = layout_of(folder)
    if "" not in layout.splits:
        choices = " or ".join(str(path) for path in layout.splits.values())
        raise CanonistiaError(f"{folder} contains splits; expected one folder per class; evaluate one split: {choices}")
    return read_class_folders(layout.splits[""])


def _of_tables(source: Path, splits: Sequence[str]) -> list[LabelledPicture]:
    pictures = all_labelled_pictures(source)
    by_split = ([picture for picture in pictures if picture.split == split] for split in splits)
    return next((found for found in by_split if found), pictures)


def evaluate(
    engine: Engine,
    paths: Iterable[Path],
    labels: Sequence[str],
    out_of_distribution: Sequence[Path] = (),
    workers: int = 1,
    sources: Sequence[str] = (),
) -> Evaluation:
    """Run the cascade over pictures whose labels and sources, in the same order, are given.

    ``workers`` batches are decoded and inferred in parallel.

    Raises
    ------
    CanonistiaError
        Pictures cannot be read; it names all of them.
    """
    output = run_all(engine, paths, workers)
    return Evaluation(
        engine,
        targets_of(engine, labels),
        output,
        run_all(engine, out_of_distribution, workers) if out_of_distribution else None,
        tuple(sources),
    )


def targets_of(engine: Engine, labels: Sequence[str]) -> np.ndarray:
    """Return the index (N,) of each label among the bundle's classes."""
    index = {label: number for number, label in enumerate(engine.classes)}
    return np.array([index[label] for label in labels])


def joined(outputs: Sequence[CascadeOutput]) -> CascadeOutput:
    """Return the output about batches as the output about all their pictures."""
    return CascadeOutput(
        **{
            field.name: np.concatenate([getattr(output, field.name) for output in outputs])
            for field in fields(CascadeOutput)
        }
    )


def readable_batches(engine: Engine, paths: Iterable[Path]) -> Iterator[list[View]]:
    """Yield the pictures of files, decoded for an engine's models, in order, in batches.

    Raises
    ------
    CanonistiaError
        Pictures cannot be read; it names all of them, of this batch and the following ones.
    """
    bad: list[tuple[Path, PictureError]] = []
    for batch in engine.viewed_batches(paths):
        bad += _refused(batch)
        if not bad:
            yield readable(batch)
    if bad:
        raise unreadable(bad)


def run_all(engine: Engine, paths: Iterable[Path], workers: int) -> CascadeOutput:
    """Return the cascade's output about the pictures of files; ``workers`` batches are processed in parallel.

    Raises
    ------
    CanonistiaError
        Pictures cannot be read; it names all of them.
    """
    bad: list[tuple[Path, PictureError]] = []

    def run(batch: Sequence[Path]) -> CascadeOutput | None:
        viewed = [(path, engine.see(path)) for path in batch]
        bad.extend(_refused(viewed))
        return None if bad else engine.run(readable(viewed))  # after the first bad one, only look for others

    outputs = list(in_order(run, batches(paths, BATCH_SIZE), workers))
    if bad:
        raise unreadable(bad)
    return joined([output for output in outputs if output])


def _refused(viewed: Iterable[tuple[Path, View | PictureError]]) -> list[tuple[Path, PictureError]]:
    return [(path, picture) for path, picture in viewed if isinstance(picture, PictureError)]


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
