"""The export, step by step: logits, calibration and rules, ONNX files, parity, one bundle written whole."""

import re
from datetime import UTC, datetime

from cascade.bundle.manifest import MANIFEST, SCHEMA_VERSION, Manifest, Provenance
from cascade.bundle.reading import Bundle, read_bundle
from cascade.errors import CanonistiaError
from cascade.inference.engine import Engine
from export.bundles.answers import answers, served_cascade
from export.bundles.model_files import describe_calibration, describe_submodels, write_networks, write_submodels
from export.bundles.parity import check_parity
from export.bundles.provenance import command_lines
from export.bundles.recording import record_bundle
from export.bundles.trained import Trained, load_trained
from export.bundles.writing import new_bundle_folder, read_notes, write_manifest
from export.fitting.accept import fit_accept
from export.fitting.measure import measure
from export.fitting.selection import FittedCascade, Terms, fit_cascade
from export.graphs.cost import second_stage_cost
from export.plan import ExportPlan
from trainers.runs.folder import TrainedRun, code_version

# With a shared trunk one more candidate class is almost free; own networks are asked about this many classes only.
OWN_NETWORK_CANDIDATES = 3


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
    trained = load_trained(plan)
    data = trained.data
    terms = _terms(plan, trained)
    served = served_cascade(plan, trained)

    with new_bundle_folder(plan.out, plan.overwrite) as folder:
        networks = write_networks(folder, served.trained, served.distances)
        answered = answers(plan, served, networks.opened)
        logits = answered.logits
        measurement = measure(logits, terms, answered.split, answered.seen_in_training, answered.method)
        accept = fit_accept(measurement.answers, logits.targets, plan.accept) if plan.accept else None
        fitted = fit_cascade(logits, terms).promising(accept)
        submodels = write_submodels(folder, served.trained, fitted.calibrators)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=plan.out.name,
            classes=list(data.classes),
            main=networks.main,
            trunk=networks.trunk,
            submodels=describe_submodels(folder, data.classes, submodels, measurement),
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
        check_parity(Engine.load(folder), answered.paths, answered.reference, fitted)
    bundle = read_bundle(plan.out)
    record_bundle(plan, bundle)
    return bundle, fitted


def _terms(plan: ExportPlan, trained: Trained) -> Terms:
    count = len(trained.data.classes)
    candidates = count if trained.submodels.trunk else min(OWN_NETWORK_CANDIDATES, count)
    size = trained.main.sidecar.preprocess.size
    cost = second_stage_cost(trained.main.network, size, trained.submodels, candidates)
    return Terms(candidates, cost, plan.budget, plan.false_alarm_rate, plan.seed, plan.both_rate)


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
