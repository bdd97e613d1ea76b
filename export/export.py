"""The export, top to bottom: logits, calibration and rules, ONNX, parity, one bundle written at once."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import torch

from cascade.bundle import (
    CARD,
    MANIFEST,
    SCHEMA_VERSION,
    Accuracy,
    Bundle,
    Calibration,
    Manifest,
    Measured,
    PixelModel,
    Provenance,
    Submodel,
    describe_file,
    read_bundle,
)
from cascade.engine import Engine
from cascade.errors import CanonistiaError
from cascade.metrics import accuracy_summary
from cascade.preprocess import PreprocessSpec
from export.calibration import Calibrators
from export.card import model_card
from export.graphs import MainGraph, SubmodelGraph, TrunkGraph, write_onnx
from export.history import commands
from export.parity import check_parity
from export.plan import ExportPlan
from export.routing import Answers, FittedCascade, check_class_counts, fit_cascade, out_of_fold
from trainers.dataset import load_data_set
from trainers.features import cached_features
from trainers.network import Classifier
from trainers.progress import track
from trainers.runs import TrainedRun, check_same_data, code_version, load_run
from trainers.submodels import Submodels, load_submodels

# With a shared trunk a further question is almost free; a network a class is asked about this many classes only.
OWN_NETWORK_CANDIDATES = 3


def export_bundle(plan: ExportPlan) -> Bundle:
    """Export trained runs as one bundle, and return it as read back.

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

    paths = [picture.path for picture in data.validation]
    answers = Answers(
        main=_logits(main.network, paths, main.sidecar.preprocess),
        submodels=_submodel_logits(submodels, paths),
        targets=data.targets(data.validation),
    )
    count = len(data.classes)
    candidates = count if submodels.trunk else min(OWN_NETWORK_CANDIDATES, count)
    check_class_counts(answers.targets, data.classes)
    measured = _measure(answers, candidates, plan, data.seen_in_training)
    fitted = fit_cascade(answers, candidates, plan.max_routed, plan.seed)

    with _written_at_once(plan.out, plan.overwrite) as folder:
        _write_models(folder, main, submodels, fitted.calibrators, plan.out.name, measured, fitted, plan)
        check_parity(Engine.load(folder), paths, answers, fitted)
    return read_bundle(plan.out)


def _check_out(plan: ExportPlan) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", plan.out.name):
        raise CanonistiaError(f"'{plan.out.name}' is no bundle name; expected letters, digits, '_', '.', '-'")
    if plan.out.exists() and not (plan.overwrite and (plan.out / MANIFEST).exists()):
        raise CanonistiaError(f"{plan.out} exists; choose another --out, or --overwrite an earlier bundle")


def _logits(network: Classifier, paths: list[Path], spec: PreprocessSpec) -> np.ndarray:
    features = cached_features(network, paths, spec, "cpu")  # (N, D)
    with torch.inference_mode():
        return network.head(features).numpy()  # (N, outputs)


def _submodel_logits(submodels: Submodels, paths: list[Path]) -> np.ndarray:
    spec = submodels.common.preprocess
    if submodels.trunk:
        features = cached_features(submodels.trunk, paths, spec, "cpu")  # (N, D)
        with torch.inference_mode():
            return torch.cat([head(features) for head in submodels.networks], dim=1).numpy()  # (N, K)
    columns = [_logits(network, paths, spec) for network in submodels.networks if isinstance(network, Classifier)]
    return np.concatenate(columns, axis=1)


def _measure(answers: Answers, candidates: int, plan: ExportPlan, seen_in_training: int) -> Measured:
    unseen = out_of_fold(answers, candidates, plan.max_routed, plan.seed)

    def accuracy(probabilities: np.ndarray) -> Accuracy:
        return msgspec.convert(accuracy_summary(probabilities, answers.targets), Accuracy)

    method = "Calibration, routing and decision were fitted out of fold (nested five-fold cross-validation)."
    if plan.checkpoint == "best":
        method += " The main model's epoch was chosen on the same pictures."
    return Measured(
        split="validation",
        method=method,
        pictures=len(answers.targets),
        seen_in_training=seen_in_training,
        main=accuracy(unseen.cascade.main),
        submodels=accuracy(unseen.submodels),
        cascade=accuracy(unseen.cascade.probabilities),
        routed=float(unseen.cascade.routed.mean()),
        unsure=float(unseen.cascade.unsure.mean()),
    )


def _write_models(
    folder: Path,
    main: TrainedRun,
    submodels: Submodels,
    calibrators: Calibrators,
    name: str,
    measured: Measured,
    fitted: FittedCascade,
    plan: ExportPlan,
) -> None:
    (folder / "submodels").mkdir()
    classes = main.sidecar.classes
    outputs = ("probabilities", "logits", "activation_maps")
    graph = MainGraph(main.network, calibrators.temperature)
    write_onnx(graph, _pixels(main.sidecar.preprocess), "pixels", outputs, folder / "main.onnx")
    spec = submodels.common.preprocess
    trunk = None
    if submodels.trunk:
        write_onnx(TrunkGraph(submodels.trunk), _pixels(spec), "pixels", ("features",), folder / "trunk.onnx")
        trunk = PixelModel(
            file=describe_file(folder, "trunk.onnx"), preprocess=spec, backbone=submodels.common.backbone
        )
    entries = []
    for index, label in track(list(enumerate(classes)), "exporting submodels"):
        head = SubmodelGraph(submodels.networks[index], calibrators.slopes[index], calibrators.intercepts[index])
        example = torch.zeros(2, submodels.trunk.backbone.features) if submodels.trunk else _pixels(spec)
        path = f"submodels/{index:02d}_{re.sub(r'[^a-z0-9]+', '_', label.lower())}.onnx"
        write_onnx(head, example, "features" if trunk else "pixels", ("probability", "logit"), folder / path)
        eyes = (None, None) if trunk else (spec, submodels.common.backbone)
        entries.append(Submodel(label, describe_file(folder, path), *eyes))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        classes=classes,
        main=PixelModel(
            file=describe_file(folder, "main.onnx"), preprocess=main.sidecar.preprocess, backbone=main.sidecar.backbone
        ),
        trunk=trunk,
        submodels=entries,
        calibration=Calibration(
            temperature=calibrators.temperature,
            submodels={
                label: (float(calibrators.slopes[index]), float(calibrators.intercepts[index]))
                for index, label in enumerate(classes)
            },
        ),
        rules=fitted.rules,
        measured=measured,
        provenance=Provenance(
            data_fingerprint=main.sidecar.data_fingerprint,
            code_version=code_version(),
            created=datetime.now(UTC).date().isoformat(),
            main_run=plan.main_run.name,
            submodel_runs=plan.subs.name,
        ),
    )
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST).write_bytes(content + b"\n")
    (folder / CARD).write_text(model_card(manifest, commands(plan)), encoding="utf-8")


def _pixels(spec: PreprocessSpec) -> torch.Tensor:
    return torch.zeros(2, spec.size, spec.size, 3, dtype=torch.uint8)


@contextmanager
def _written_at_once(out: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that takes its place when all went well, and is removed otherwise."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise CanonistiaError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
    old = folder.with_suffix(".old")
    try:
        yield folder
        folder.chmod(0o755)
        if overwrite and out.exists():
            os.replace(out, old)
        os.replace(folder, out)
    except OSError as error:
        raise CanonistiaError(f"{out} could not be written ({error}); nothing was left behind") from error
    finally:
        if old.exists() and not out.exists():
            os.replace(old, out)
        for left in (folder, old):
            shutil.rmtree(left, ignore_errors=True)
