"""Refitting a bundle's calibration, rules and figures on the logits of its own networks."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from cascade.bundle.manifest import SCHEMA_VERSION, Manifest
from cascade.evaluation.evaluation import readable_batches
from cascade.images.preprocess import least_size
from cascade.inference.engine import Engine
from cascade.progress import track
from cascade.rules.another_class import another_class
from export.bundles.model_files import SubmodelFile, describe_calibration, describe_submodels
from export.fitting.both import pairs_to_fit
from export.fitting.measure import Measurement
from export.fitting.selection import FittedCascade, Terms
from export.fitting.shifted_pictures import shifted_pictures
from export.fitting.stage_logits import ComposedLogits, StageLogits
from export.graphs.modules import set_scalars
from trainers.data.composed import parents_of
from trainers.features.made_pictures import composed_pictures
from trainers.runs.folder import code_version


def terms_of(manifest: Manifest, budget: float, false_alarm_rate: float, both_rate: float, seed: int) -> Terms:
    """Return the requirements on the refitted cascade of a bundle; what routing costs stays as it is."""
    candidates, cost = manifest.rules.candidates, manifest.second_stage_cost
    return Terms(candidates, cost, budget, false_alarm_rate, seed, both_rate)


def collect_logits(engine: Engine, paths: Sequence[Path], targets: np.ndarray, seed: int) -> StageLogits:
    """Return the logits of both stages of a bundle, every submodel asked, about pictures, shifted and composed ones."""
    logits = _logits(engine, paths, targets, "asking both stages")  # first: it names every picture that cannot be read
    least = max(least_size(spec) for _, spec in engine.bundle.manifest.networks)
    with shifted_pictures(paths, least) as copies:
        shifted = _logits(engine, copies, targets, "asking both stages about shifted copies")
    pairs = pairs_to_fit(targets, seed)
    parents = parents_of(pairs)
    with composed_pictures(paths, pairs, least) as files:
        composed = _logits(engine, files, targets[parents[:, 0]], "asking both stages about composed pictures")
    return replace(logits, shifted=shifted, composed=ComposedLogits(composed, parents))


def _logits(engine: Engine, paths: Sequence[Path], targets: np.ndarray, what: str) -> StageLogits:
    main, distances, submodels, another = [], [], [], []
    more = ["activation_maps"] * engine.has_activation_maps
    for pictures in readable_batches(engine, track(paths, what)):
        logits, distance, *maps = engine.main_outputs(pictures, "logits", "distance", *more)
        another.extend([another_class(one) for one in maps])
        main.append(logits)
        distances.append(distance)
        submodels.append(engine.ask_submodels(pictures, np.ones(logits.shape, dtype=bool), "logit"))
    return StageLogits(
        np.concatenate(main),
        np.concatenate(distances),
        np.concatenate(submodels),
        targets,
        np.concatenate(another) if another else None,
    )


def refit_manifest(
    folder: Path, manifest: Manifest, fitted: FittedCascade, measurement: Measurement, command: str
) -> Manifest:
    """Set the calibration in the submodels' files of a bundle, and return the manifest of the changed bundle."""
    calibrators = fitted.calibrators
    for submodel, slope, intercept in zip(manifest.submodels, calibrators.slopes, calibrators.intercepts, strict=True):
        set_scalars(folder / submodel.file.path, {"slope": slope, "intercept": intercept})
    files = [SubmodelFile(part.file.path, part.preprocess, part.backbone) for part in manifest.submodels]
    provenance = msgspec.structs.replace(
        manifest.provenance,
        code_version=code_version(),
        created=datetime.now(UTC).date().isoformat(),
        commands=[*manifest.provenance.commands, command],
    )
    return msgspec.structs.replace(
        manifest,
        schema_version=SCHEMA_VERSION,
        submodels=describe_submodels(folder, manifest.classes, files, measurement),
        calibration=describe_calibration(calibrators, manifest.classes),
        rules=fitted.rules,
        prediction_sets=measurement.prediction_sets,
        measured=measurement.measured,
        provenance=provenance,
    )
