"""Out-of-fold probabilities of training pictures, from models that were not trained on the picture in question."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cascade.files import write_bytes
from trainers.features.cache import cached_features
from trainers.features.negatives import cross_fitted
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig
from trainers.runs.folder import TrainedRun, read_config

_FILE = "out_of_fold.npz"


def out_of_fold_probabilities(main: TrainedRun, paths: Sequence[Path], targets: np.ndarray, device: str) -> np.ndarray:
    """Return cross-fitted probabilities of training pictures (N, K), from the run's folder where they are known.

    Raises
    ------
    CanonistiaError
        A class has only one picture.
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
    """Write what :func:`out_of_fold_probabilities` returned into the main run's folder, for its submodels."""
    content = io.BytesIO()
    np.savez(content, probabilities=probabilities, key=np.array(_key(paths, targets)))
    write_bytes(folder / _FILE, content.getbuffer())


def untrained(main: TrainedRun) -> Classifier:
    """Return the main model's network with its backbone as it was before the training."""
    config = read_config(main.folder)
    if config["unfreeze"] == "head" and not config.get("start"):
        return main.network  # frozen; a run that it started from may have trained the backbone
    weights = Path(config["weights"]) if config.get("weights") else None
    sidecar, pretrained = main.sidecar, config.get("pretrained", True)
    before = NetworkConfig(sidecar.backbone, weights, sidecar.preprocess.size, flip=sidecar.flip, pretrained=pretrained)
    return build_classifier(before, 1, sidecar.dropout)


def _key(paths: Sequence[Path], targets: np.ndarray) -> str:
    lines = (f"{target}\t{path.parent.name}/{path.name}" for path, target in zip(paths, targets, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
