"""Tuning: a bundle's calibration and rules fitted anew on labelled pictures, within a budget."""

import shlex
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from cascade.bundle import Bundle, Manifest, describe_file, find_bundle, read_bundle
from cascade.engine import Engine
from cascade.errors import CanonistiaError
from cascade.evaluation import labelled_pictures, readable_batches
from cascade.folders import LabelledPicture, split_folders
from cascade.metrics import accuracy_summary
from export.answers import Answers, check_class_counts
from export.choice import Compared, FittedCascade, Terms, compare, fit_cascade
from export.curve import check_picture_name, draw_curve
from export.graphs import set_scalars
from export.measure import EPOCH_NOTE, Measurement, measure
from export.model_files import SubmodelFile, described, measured_submodels
from export.parity import check_parity
from export.plan import BUDGET, FALSE_ALARM_RATE
from export.writing import write_manifest, written_at_once
from trainers.progress import track
from trainers.runs import code_version

_NOT_CHECKED = " That no network was trained on these pictures was not checked."


@dataclass(frozen=True)
class TunePlan:
    """What is tuned: the bundle, the labelled pictures, the budget in main passes, and where the curve is drawn."""

    model: str
    data: Path
    plot: Path
    budget: float = BUDGET
    false_alarm_rate: float = FALSE_ALARM_RATE
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """The bundle as it was written, how its rules were chosen, and what the others would have given."""

    bundle: Bundle
    fitted: FittedCascade
    terms: Terms
    compared: list[Compared]
    targets: np.ndarray


def tune(plan: TunePlan) -> Tuned:
    """Compare all rules by cross-validation, write the best that keep to the budget into the bundle.

    Raises
    ------
    CanonistiaError
        The pictures are not of the bundle's classes or too few, the budget does not pay for the main model, or a
        file cannot be read or written; the bundle is as it was then.
    """
    check_picture_name(plan.plot)
    bundle = read_bundle(find_bundle(plan.model))
    manifest = bundle.manifest
    terms = Terms(manifest.rules.candidates, manifest.second_stage_cost, plan.budget, plan.false_alarm_rate, plan.seed)
    pictures = _pictures(plan.data, tuple(manifest.classes))
    paths = [picture.path for picture in pictures]
    targets = np.array([manifest.classes.index(picture.label) for picture in pictures])
    check_class_counts(targets, manifest.classes, str(plan.data))
    answers = _answers(Engine(bundle), paths, targets)

    compared = compare(answers, terms, terms.shares)
    note = _NOT_CHECKED + (EPOCH_NOTE if EPOCH_NOTE in manifest.measured.method else "")
    measurement = measure(answers, terms, _split_name(plan.data), 0, note)
    fitted = fit_cascade(answers, terms, compared)
    place = bundle.folder.resolve()
    with written_at_once(place, overwrite=True) as folder:
        shutil.copytree(place, folder, dirs_exist_ok=True)
        _recalibrate(folder, manifest, fitted)
        write_manifest(folder, _changed(folder, manifest, fitted, measurement, plan))
        check_parity(Engine.load(folder), paths, answers, fitted)
    draw_curve(compared, targets, terms, measurement.measured, plan.plot)
    return Tuned(read_bundle(place), fitted, terms, compared, targets)


def comparison(tuned: Tuned) -> str:
    """Return a table: each pair of rules at the share where its log loss within the budget is least."""
    lines = [
        f"{'routing':<12}{'decision':<18}{'routed':>8}{'cost':>7}{'top 1':>9}{'top 2':>9}{'ece':>9}{'log loss':>10}"
    ]
    best: dict[tuple[str, str], Compared] = {}
    for entry in tuned.compared:
        key = (entry.routing if entry.share else "nothing", entry.decision if entry.share else "")
        within = entry.share <= tuned.terms.most_routed
        if within and (key not in best or _mean_loss(entry, tuned) < _mean_loss(best[key], tuned)):
            best[key] = entry
    for (routing, decision), entry in best.items():
        figures = accuracy_summary(entry.probabilities, tuned.targets)
        lines.append(
            f"{routing:<12}{decision:<18}{entry.routed.mean():>8.1%}{tuned.terms.cost(entry.routed):>7.2f}"
            f"{figures['top1']:>9.4f}{figures['top2']:>9.4f}{figures['ece']:>9.4f}{_mean_loss(entry, tuned):>10.4f}"
        )
    return "\n".join(lines)


def _mean_loss(entry: Compared, tuned: Tuned) -> float:
    return float(entry.log_loss(tuned.targets).mean())


def _split_name(folder: Path) -> str:
    return "validation" if split_folders(folder) else folder.resolve().name


def _pictures(folder: Path, classes: tuple[str, ...]) -> list[LabelledPicture]:
    splits = split_folders(folder)
    if splits and "validation" not in splits:
        raise CanonistiaError(f"{folder} has no validation split; give a folder of class folders to tune on")
    return labelled_pictures(splits["validation"] if splits else folder, classes)


def _answers(engine: Engine, paths: list[Path], targets: np.ndarray) -> Answers:
    main, far, submodels = [], [], []
    for pictures in readable_batches(engine, track(paths, "asking both stages")):
        logits, distance = engine.main_outputs(pictures, "logits", "distance")
        main.append(logits)
        far.append(distance)
        submodels.append(engine.ask_submodels(pictures, np.ones(logits.shape, dtype=bool), "logit"))
    return Answers(np.concatenate(main), np.concatenate(far), np.concatenate(submodels), targets)


def _recalibrate(folder: Path, manifest: Manifest, fitted: FittedCascade) -> None:
    calibrators = fitted.calibrators
    set_scalars(folder / manifest.main.file.path, {"temperature": calibrators.temperature})
    for submodel, slope, intercept in zip(manifest.submodels, calibrators.slopes, calibrators.intercepts, strict=True):
        set_scalars(folder / submodel.file.path, {"slope": slope, "intercept": intercept})


def _changed(
    folder: Path, manifest: Manifest, fitted: FittedCascade, measurement: Measurement, plan: TunePlan
) -> Manifest:
    files = [SubmodelFile(part.file.path, part.preprocess, part.backbone) for part in manifest.submodels]
    words = ["canonistia", "tune", manifest.name, plan.data.resolve().name, "--budget", f"{plan.budget:g}"]
    for name, default in (("false_alarm_rate", FALSE_ALARM_RATE), ("seed", 0)):
        if getattr(plan, name) != default:
            words += [f"--{name.replace('_', '-')}", str(getattr(plan, name))]
    provenance = msgspec.structs.replace(
        manifest.provenance,
        code_version=code_version(),
        created=datetime.now(UTC).date().isoformat(),
        commands=[*manifest.provenance.commands, shlex.join(words)],
    )
    main = msgspec.structs.replace(manifest.main, file=describe_file(folder, manifest.main.file.path))
    return msgspec.structs.replace(
        manifest,
        main=main,
        submodels=measured_submodels(folder, manifest.classes, files, measurement),
        calibration=described(fitted.calibrators, manifest.classes),
        rules=fitted.rules,
        answer_sets=measurement.answer_sets,
        measured=measurement.measured,
        provenance=provenance,
    )
