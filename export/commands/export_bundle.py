"""The export, step by step: logits, calibration and rules, ONNX files, parity, one bundle written whole."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from cascade.bundle.manifest import MANIFEST, SCHEMA_VERSION, Manifest, Provenance
from cascade.bundle.reading import Bundle, read_bundle
from cascade.errors import CanonistiaError
from cascade.images.preprocess import PreprocessSpec, least_size
from cascade.inference.engine import Engine
from export.bundles.model_files import describe_calibration, describe_submodels, write_models
from export.bundles.parity import check_parity
from export.bundles.provenance import command_lines
from export.bundles.recording import record_bundle
from export.bundles.writing import new_bundle_folder, read_notes, write_manifest
from export.fitting.accept import fit_accept
from export.fitting.both import pairs_to_fit
from export.fitting.measure import EPOCH_NOTE, measure
from export.fitting.selection import FittedCascade, Terms, fit_cascade
from export.fitting.shifted_pictures import shifted_pictures
from export.fitting.stage_logits import ComposedLogits, StageLogits, check_class_counts
from export.graphs.another_class import evidence_of_another_class
from export.graphs.cost import second_stage_cost
from export.graphs.distance import ClassDistances, distances, fit_distances
from export.plan import ExportPlan
from trainers.data.composed import parents_of
from trainers.data.dataset import DataSet, load_data_set
from trainers.features.cache import cached_features, features_sha256
from trainers.features.made_pictures import composed_pictures
from trainers.networks.classifier import Classifier
from trainers.runs.folder import TrainedRun, check_same_data, code_version, load_run
from trainers.runs.submodels import Submodels, load_submodels

# With a shared trunk one more candidate class is almost free; own networks are asked about this many classes only.
OWN_NETWORK_CANDIDATES = 3


@dataclass(frozen=True)
class _Trained:
    """The trained runs of both stages and the data set that they were trained on."""

    main: TrainedRun
    submodels: Submodels
    data: DataSet


def export_bundle(plan: ExportPlan) -> tuple[Bundle, FittedCascade]:
    """Export trained runs as one bundle; return the bundle as read back, and its rules as they were chosen.

    Raises
    ------
    CanonistiaError
        The runs do not belong together or to the data set, parity fails, or the bundle cannot be written. Nothing
        is left behind then.
    """
    check_out(plan)
    notes = read_notes(plan.notes)
    trained = _load_trained(plan)
    data = trained.data
    terms = _terms(plan, trained)
    targets = data.targets(data.validation)
    check_class_counts(targets, data.classes, "the validation split")

    training_features = _main_features(trained.main, [picture.path for picture in data.training])
    fitted_distances = fit_distances(training_features.numpy(), data.targets(data.training))
    paths = [picture.path for picture in data.validation]
    logits = _stage_logits(trained, fitted_distances, paths, targets, by_pytorch=True)
    with shifted_pictures(paths, least_size(_largest(trained))) as copies:
        logits = replace(logits, shifted=_stage_logits(trained, fitted_distances, copies, targets))
    logits = replace(logits, composed=_composed_logits(plan, trained, fitted_distances, paths, targets))
    note = " No network was trained on these pictures." + (EPOCH_NOTE if plan.checkpoint == "best" else "")
    measurement = measure(logits, terms, "validation", data.seen_in_training, note)
    accept = fit_accept(measurement.answers, targets, plan.accept) if plan.accept else None
    fitted = fit_cascade(logits, terms).promising(accept)

    with new_bundle_folder(plan.out, plan.overwrite) as folder:
        files = write_models(folder, trained.main, trained.submodels, fitted.calibrators, fitted_distances)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=plan.out.name,
            classes=list(data.classes),
            main=files.main,
            trunk=files.trunk,
            submodels=describe_submodels(folder, data.classes, files.submodels, measurement),
            head_features="both" if trained.submodels.common.main_features else "trunk",
            calibration=describe_calibration(fitted.calibrators, data.classes),
            rules=fitted.rules,
            second_stage_cost=terms.second_stage_cost,
            prediction_sets=measurement.prediction_sets,
            measured=measurement.measured,
            provenance=_provenance(plan, trained.main),
            notes=notes,
        )
        write_manifest(folder, manifest)
        check_parity(Engine.load(folder), paths, logits, fitted)
    bundle = read_bundle(plan.out)
    record_bundle(plan, bundle)
    return bundle, fitted


def _load_trained(plan: ExportPlan) -> _Trained:
    """Return the runs and their data set, once they are known to belong together."""
    main = load_run(plan.main_run, plan.checkpoint)
    submodels = load_submodels(plan.subs)
    data = load_data_set(plan.data, main.sidecar.seed)
    check_same_data(plan.data, data, main)
    if submodels.common.data_fingerprint != data.fingerprint:
        raise CanonistiaError(
            f"{plan.subs} was trained on another data set than {plan.main_run}, expected the same; train it again"
        )
    if submodels.common.classes != list(data.classes):
        raise CanonistiaError(
            f"{plan.subs} is for the classes {', '.join(submodels.common.classes)}, and the data set has "
            f"{', '.join(data.classes)}; there must be one submodel per class: run train-sub again"
        )
    _check_main_features(plan, main, submodels)
    return _Trained(main, submodels, data)


def _terms(plan: ExportPlan, trained: _Trained) -> Terms:
    count = len(trained.data.classes)
    candidates = count if trained.submodels.trunk else min(OWN_NETWORK_CANDIDATES, count)
    size = trained.main.sidecar.preprocess.size
    cost = second_stage_cost(trained.main.network, size, trained.submodels, candidates)
    return Terms(candidates, cost, plan.budget, plan.false_alarm_rate, plan.seed, plan.both_rate)


def _largest(trained: _Trained) -> PreprocessSpec:
    """Return the preprocessing of the network that needs most of a picture's pixels."""
    return max(trained.main.sidecar.preprocess, trained.submodels.common.preprocess, key=least_size)


def _stage_logits(
    trained: _Trained, fitted: ClassDistances, paths: list[Path], targets: np.ndarray, by_pytorch: bool = False
) -> StageLogits:
    """Return the logits of both stages for pictures of the given classes (N,).

    ``by_pytorch`` asks for those of PyTorch alone, which the exported graphs are compared with.
    """
    features = _main_features(trained.main, paths, by_pytorch)
    with torch.inference_mode():
        main = trained.main.network.head(features).numpy()  # (N, K)
    return StageLogits(
        main=main,
        distance=distances(fitted, features),
        submodels=_submodel_logits(trained.submodels, paths, features, by_pytorch),
        targets=targets,
        another=evidence_of_another_class(trained.main.network, paths, trained.main.sidecar.preprocess, by_pytorch),
    )


def _composed_logits(
    plan: ExportPlan, trained: _Trained, fitted: ClassDistances, paths: list[Path], targets: np.ndarray
) -> ComposedLogits:
    pairs = pairs_to_fit(targets, plan.seed)
    parents = parents_of(pairs)
    with composed_pictures(paths, pairs, least_size(_largest(trained))) as files:
        return ComposedLogits(_stage_logits(trained, fitted, files, targets[parents[:, 0]]), parents)


def _provenance(plan: ExportPlan, main: TrainedRun) -> Provenance:
    return Provenance(
        data_fingerprint=main.sidecar.data_fingerprint,
        code_version=code_version(),
        created=datetime.now(UTC).date().isoformat(),
        main_run=plan.main_run.name,
        submodel_runs=plan.subs.name,
        commands=command_lines(plan),
    )


def check_out(plan: ExportPlan) -> None:
    """Raise CanonistiaError unless a bundle can be made in the plan's folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", plan.out.name):
        raise CanonistiaError(
            f"'{plan.out.name}' is not a bundle name, expected letters, digits, '_', '.' and '-'; choose another --out"
        )
    if plan.out.exists() and not (plan.overwrite and (plan.out / MANIFEST).exists()):
        raise CanonistiaError(f"{plan.out} exists; choose another --out, or replace an earlier bundle with --overwrite")


def _check_main_features(plan: ExportPlan, main: TrainedRun, submodels: Submodels) -> None:
    needed = submodels.common.main_features
    if needed and needed.sha256 != features_sha256(main.network, main.sidecar.preprocess):
        raise CanonistiaError(
            f"the heads in {plan.subs} read the features of another main model than the {plan.checkpoint} checkpoint "
            f"of {plan.main_run}; export the main model that they were trained with, or run train-sub again"
        )


def _main_features(main: TrainedRun, paths: list[Path], by_pytorch: bool = False) -> torch.Tensor:
    return cached_features(main.network, paths, main.sidecar.preprocess, "cpu", by_pytorch=by_pytorch)  # (N, D)


def _logits(network: Classifier, paths: list[Path], spec: PreprocessSpec, by_pytorch: bool) -> np.ndarray:
    features = cached_features(network, paths, spec, "cpu", by_pytorch=by_pytorch)  # (N, D)
    with torch.inference_mode():
        return network.head(features).numpy()  # (N, outputs)


def _submodel_logits(
    submodels: Submodels, paths: list[Path], main_features: torch.Tensor, by_pytorch: bool
) -> np.ndarray:
    spec = submodels.common.preprocess
    if submodels.trunk:
        features = cached_features(submodels.trunk, paths, spec, "cpu", by_pytorch=by_pytorch)  # (N, D)
        if submodels.common.main_features:
            features = torch.cat([features, main_features], dim=1)  # (N, D + M)
        with torch.inference_mode():
            return torch.cat([head(features) for head in submodels.networks], dim=1).numpy()  # (N, K)
    networks = [network for network in submodels.networks if isinstance(network, Classifier)]
    columns = [_logits(network, paths, spec, by_pytorch) for network in networks]
    return np.concatenate(columns, axis=1)
