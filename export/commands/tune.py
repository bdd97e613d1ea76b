"""Tuning: a bundle's calibration and rules refitted on labelled pictures, within a budget."""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from cascade.bundle.lookup import find_bundle
from cascade.bundle.manifest import Manifest
from cascade.bundle.reading import Bundle, read_bundle
from cascade.destinations import check_folder
from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import labelled_pictures
from cascade.evaluation.metrics import accuracy_summary
from cascade.images.folders import LabelledPicture
from cascade.images.layout import layout_of
from cascade.images.manifest import is_listed
from cascade.inference.engine import Engine
from export.bundles.parity import check_parity
from export.bundles.provenance import changed_options
from export.bundles.refit import collect_logits, refit_manifest, terms_of
from export.bundles.writing import new_bundle_folder, read_notes, write_manifest
from export.commands.curve import check_picture_name, draw_curve
from export.fitting.accept import fit_accept
from export.fitting.measure import EPOCH_NOTE, measure
from export.fitting.selection import Compared, FittedCascade, Terms, compare, fit_cascade
from export.fitting.stage_logits import check_class_counts
from export.plan import BOTH_RATE, BUDGET, FALSE_ALARM_RATE

_NOT_CHECKED = " That no network was trained on these pictures was not checked."


@dataclass(frozen=True)
class TunePlan:
    """What to tune: the bundle, the labelled pictures, the budget in main passes, and the file for the curve."""

    model: str
    data: Path
    plot: Path
    budget: float = BUDGET
    false_alarm_rate: float = FALSE_ALARM_RATE
    both_rate: float = BOTH_RATE
    accept: float | None = None  # accuracy of accepted answers that is promised
    seed: int = 0
    notes: Path | None = None


@dataclass(frozen=True)
class Tuned:
    """The bundle as written, its chosen rules, and the out-of-fold results of all rules that were compared."""

    bundle: Bundle
    fitted: FittedCascade
    terms: Terms
    compared: list[Compared]
    targets: np.ndarray


def tune(plan: TunePlan) -> Tuned:
    """Compare all rules by cross-validation, and write the best within the budget into the bundle.

    Raises
    ------
    CanonistiaError
        The pictures are too few, also to promise what ``accept`` says, or not of the bundle's classes, the budget
        leaves nothing for the second stage, or a file cannot be read or written. The bundle is unchanged then.
    """
    check_picture_name(plan.plot)
    bundle = read_bundle(find_bundle(plan.model))
    check_folder(bundle.folder)
    manifest = bundle.manifest
    if plan.notes:
        manifest = msgspec.structs.replace(manifest, notes=read_notes(plan.notes))
    terms = terms_of(manifest, plan.budget, plan.false_alarm_rate, plan.both_rate, plan.seed)
    pictures = _read_pictures(plan.data, tuple(manifest.classes))
    paths = [picture.path for picture in pictures]
    targets = np.array([manifest.classes.index(picture.label) for picture in pictures])
    check_class_counts(targets, manifest.classes, str(plan.data))
    logits = collect_logits(Engine(bundle), paths, targets, plan.seed)

    compared = compare(logits, terms, terms.shares)
    note = _NOT_CHECKED + (EPOCH_NOTE if EPOCH_NOTE in manifest.measured.method else "")
    measurement = measure(logits, terms, _split_name(plan.data), 0, note)
    accept = fit_accept(measurement.answers, targets, plan.accept) if plan.accept else None
    fitted = fit_cascade(logits, terms, compared).promising(accept)
    target = bundle.folder.resolve()
    with new_bundle_folder(target, overwrite=True) as folder:
        shutil.copytree(target, folder, dirs_exist_ok=True, ignore=_left_behind(target))
        write_manifest(folder, refit_manifest(folder, manifest, fitted, measurement, _command(manifest, plan)))
        check_parity(Engine.load(folder), paths, logits, fitted)
    draw_curve(compared, targets, terms, measurement.measured, plan.plot)
    return Tuned(read_bundle(target), fitted, terms, compared, targets)


def _left_behind(bundle: Path) -> Callable[[str, list[str]], list[str]]:
    """Return which files of a bundle are not copied: links that lead out of it, and what is no file, such as a pipe."""

    def belongs(path: Path) -> bool:
        return (path.is_file() or path.is_dir()) and path.resolve().is_relative_to(bundle)

    return lambda folder, names: [name for name in names if not belongs(Path(folder, name))]


def comparison_table(tuned: Tuned) -> str:
    """Return a table: each pair of rules at its share with the lowest log loss within the budget."""
    best: dict[tuple[str, str], Compared] = {}
    for entry in tuned.compared:
        key = (entry.routing if entry.share else "nothing", entry.decision if entry.share else "")
        within = entry.share <= tuned.terms.most_routed
        if within and (key not in best or _mean_loss(entry, tuned) < _mean_loss(best[key], tuned)):
            best[key] = entry
    wide, wider = (2 + max(map(len, names)) for names in zip(("routing", "decision"), *best, strict=True))
    lines = [
        f"{'routing':<{wide}}{'decision':<{wider}}"
        f"{'routed':>8}{'cost':>7}{'top 1':>9}{'top 2':>9}{'ece':>9}{'log loss':>10}"
    ]
    for (routing, decision), entry in best.items():
        figures = accuracy_summary(entry.probabilities, tuned.targets)
        lines.append(
            f"{routing:<{wide}}{decision:<{wider}}{entry.routed.mean():>8.1%}{tuned.terms.cost(entry.routed):>7.2f}"
            f"{figures['top1']:>9.4f}{figures['top2']:>9.4f}{figures['ece']:>9.4f}{_mean_loss(entry, tuned):>10.4f}"
        )
    return "\n".join(lines)


def _mean_loss(entry: Compared, tuned: Tuned) -> float:
    return float(entry.log_loss(tuned.targets).mean())


def _split_name(data: Path) -> str:
    if is_listed(data):
        return data.resolve().stem
    return data.resolve().name if "" in layout_of(data).splits else "validation"


def _read_pictures(data: Path, classes: tuple[str, ...]) -> list[LabelledPicture]:
    if is_listed(data):
        return labelled_pictures(data, classes, ("validation",))
    splits = layout_of(data).splits
    if "" not in splits and "validation" not in splits:
        raise CanonistiaError(f"{data} has no validation split; give a folder of class folders to tune on")
    return labelled_pictures(splits.get("validation", data), classes)


def _command(manifest: Manifest, plan: TunePlan) -> str:
    arguments = ["canonistia", "tune", manifest.name, plan.data.resolve().name, "--budget", f"{plan.budget:g}"]
    return shlex.join([*arguments, *changed_options(plan, ("false_alarm_rate", "both_rate", "accept", "seed"))])
