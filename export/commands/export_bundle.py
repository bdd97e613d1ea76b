"""The export, top to bottom: logits, calibration and rules, ONNX, parity, one bundle written at once."""

import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from cascade.bundle.manifest import MANIFEST, SCHEMA_VERSION, Manifest, Provenance
from cascade.bundle.reading import Bundle, read_bundle
from cascade.errors import CanonistiaError
from cascade.images.preprocess import PreprocessSpec
from cascade.inference.engine import Engine
from export.bundles.model_files import describe_calibration, measured_submodels, write_models
from export.bundles.parity import check_parity
from export.bundles.provenance import commands
from export.bundles.recording import record_bundle
from export.bundles.writing import write_manifest, written_at_once
from export.fitting.measure import EPOCH_NOTE, measure
from export.fitting.selection import FittedCascade, Terms, fit_cascade
from export.fitting.stage_logits import Answers, check_class_counts
from export.graphs.cost import second_stage_cost
from export.graphs.distance import distances, fit_distances
from export.plan import ExportPlan
from trainers.data.dataset import load_data_set
from trainers.features.cache import cached_features, features_sha256
from trainers.networks.classifier import Classifier
from trainers.runs.folder import TrainedRun, check_same_data, code_version, load_run
from trainers.runs.submodels import Submodels, load_submodels

# With a shared trunk a further question is almost free; a network a class is asked about this many classes only.
OWN_NETWORK_CANDIDATES = 3


def export_bundle(plan: ExportPlan) -> tuple[Bundle, FittedCascade]:
    """Export trained runs as one bundle, and return it as read back, with its rules as they were chosen.

    Raises
    ------
    CanonistiaError
        The runs do not belong together or to the data set, parity fails, or the bundle cannot be written; nothing
        is left behind then.
    """
    _check_out(plan)
    main = load_run(plan.main_run, plan.checkpoint)
    submodels = load_submodels(plan.subs)
    data = load_data_set(plan.data, main.sidecar.seed)
    check_same_data(plan.data, data, main)
    if submodels.common.data_fingerprint != data.fingerprint:
        raise CanonistiaError(f"{plan.subs} was trained on another data set than {plan.main_run}; train it again")

    if submodels.common.classes != list(data.classes):
        raise CanonistiaError(
            f"{plan.subs} is for the classes {', '.join(submodels.common.classes)}, and the data set has "
            f"{', '.join(data.classes)}; there must be one submodel a class: run train-sub again"
        )
    _check_main_features(plan, main, submodels)
    count = len(data.classes)
    candidates = count if submodels.trunk else min(OWN_NETWORK_CANDIDATES, count)
    size = main.sidecar.preprocess.size
    cost = second_stage_cost(main.network, size, submodels, candidates)
    terms = Terms(candidates, cost, plan.budget, plan.false_alarm_rate, plan.seed)
    check_class_counts(data.targets(data.validation), data.classes, "the validation split")

    trained_on = _main_features(main, [picture.path for picture in data.training])
    fitted_distances = fit_distances(trained_on.numpy(), data.targets(data.training))
    paths = [picture.path for picture in data.validation]
    features = _main_features(main, paths)
    with torch.inference_mode():
        logits = main.network.head(features).numpy()  # (N, K)
    answers = Answers(
        main=logits,
        distance=distances(fitted_distances, features),
        submodels=_submodel_logits(submodels, paths, features),
        targets=data.targets(data.validation),
    )
    note = " No network was trained on these pictures." + (EPOCH_NOTE if plan.checkpoint == "best" else "")
    measurement = measure(answers, terms, "validation", data.seen_in_training, note)
    fitted = fit_cascade(answers, terms)

    with written_at_once(plan.out, plan.overwrite) as folder:
        files = write_models(folder, main, submodels, fitted.calibrators, fitted_distances)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=plan.out.name,
            classes=list(data.classes),
            main=files.main,
            trunk=files.trunk,
            submodels=measured_submodels(folder, data.classes, files.submodels, measurement),
            head_features="both" if submodels.common.main_features else "trunk",
            calibration=describe_calibration(fitted.calibrators, data.classes),
            rules=fitted.rules,
            second_stage_cost=cost,
            prediction_sets=measurement.answer_sets,
            measured=measurement.measured,
            provenance=Provenance(
                data_fingerprint=main.sidecar.data_fingerprint,
                code_version=code_version(),
                created=datetime.now(UTC).date().isoformat(),
                main_run=plan.main_run.name,
                submodel_runs=plan.subs.name,
                commands=commands(plan),
            ),
        )
        write_manifest(folder, manifest)
        check_parity(Engine.load(folder), paths, answers, fitted)
    bundle = read_bundle(plan.out)
    record_bundle(plan, bundle)
    return bundle, fitted


def _check_out(plan: ExportPlan) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", plan.out.name):
        raise CanonistiaError(f"'{plan.out.name}' is no bundle name; expected letters, digits, '_', '.', '-'")
    if plan.out.exists() and not (plan.overwrite and (plan.out / MANIFEST).exists()):
        raise CanonistiaError(f"{plan.out} exists; choose another --out, or --overwrite an earlier bundle")


def _check_main_features(plan: ExportPlan, main: TrainedRun, submodels: Submodels) -> None:
    needed = submodels.common.main_features
    if needed and needed.sha256 != features_sha256(main.network, main.sidecar.preprocess):
        raise CanonistiaError(
            f"the heads in {plan.subs} read the features of another main model than the {plan.checkpoint} checkpoint "
            f"of {plan.main_run}; export the one that they were trained with, or run train-sub again"
        )


def _main_features(main: TrainedRun, paths: list[Path]) -> torch.Tensor:
    return cached_features(main.network, paths, main.sidecar.preprocess, "cpu")  # (N, D)


def _logits(network: Classifier, paths: list[Path], spec: PreprocessSpec) -> np.ndarray:
    features = cached_features(network, paths, spec, "cpu")  # (N, D)
    with torch.inference_mode():
        return network.head(features).numpy()  # (N, outputs)


def _submodel_logits(submodels: Submodels, paths: list[Path], main_features: torch.Tensor) -> np.ndarray:
    spec = submodels.common.preprocess
    if submodels.trunk:
        features = cached_features(submodels.trunk, paths, spec, "cpu")  # (N, D)
        if submodels.common.main_features:
            features = torch.cat([features, main_features], dim=1)  # (N, D + M)
        with torch.inference_mode():
            return torch.cat([head(features) for head in submodels.networks], dim=1).numpy()  # (N, K)
    columns = [_logits(network, paths, spec) for network in submodels.networks if isinstance(network, Classifier)]
    return np.concatenate(columns, axis=1)
