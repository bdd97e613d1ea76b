"""Out-of-fold answers: what models that have not seen a training picture say of it."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cascade.files import write_bytes
from trainers.features.cache import cached_features
from trainers.features.negatives import cross_fitted
from trainers.networks.classifier import Classifier, build_classifier
from trainers.runs.folder import TrainedRun, read_config

_FILE = "out_of_fold.npz"


def out_of_fold_probabilities(main: TrainedRun, paths: Sequence[Path], targets: np.ndarray, device: str) -> np.ndarray:
    """Return cross-fitted probabilities of training pictures (N, K), from the run's folder where they are known.

    Raises
    ------
    CanonistiaError
        A class has one picture only.
    """
    kept = main.folder / _FILE
    key = _key(paths, targets)
    if kept.exists():
        with np.load(kept) as known:
            if str(known["key"]) == key:
                return known["probabilities"]
    before = untrained(main)
    features = cached_features(before, paths, main.sidecar.preprocess, device)
    return cross_fitted(features.numpy(), targets)


def keep_out_of_fold_probabilities(
    folder: Path, paths: Sequence[Path], targets: np.ndarray, probabilities: np.ndarray
) -> None:
    """Write what :func:`out_of_fold_probabilities` found into the main run's folder, for its submodels."""
    content = io.BytesIO()
    np.savez(content, probabilities=probabilities, key=np.array(_key(paths, targets)))
    write_bytes(folder / _FILE, content.getbuffer())


def untrained(main: TrainedRun) -> Classifier:
    """Return the main model's network as it was before it saw a training picture, but for its head."""
    config = read_config(main.folder)
    if config["unfreeze"] == "head" and config.get("pretrained", True):
        return main.network
    weights = Path(config["weights"]) if config.get("weights") else None
    seen = main.sidecar
    size = seen.preprocess.size
    return build_classifier(seen.backbone, 1, seen.dropout, config.get("pretrained", True), weights, seen.flip, size)


def _key(paths: Sequence[Path], targets: np.ndarray) -> str:
    lines = (f"{target}\t{path.parent.name}/{path.name}" for path, target in zip(paths, targets, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
