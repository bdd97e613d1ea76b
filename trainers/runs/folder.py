"""The run folder: configuration, metrics and checkpoints of one training; each file is written whole."""

import contextlib
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import nn

from cascade.errors import CanonistiaError
from cascade.files import aside, remove, restore, write_bytes, write_json, write_text
from cascade.images.preprocess import PreprocessSpec
from cascade.locks import exclusive
from trainers.data.dataset import DataSet
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import Recipe

Metrics = Mapping[str, float]

SUMMARY = "summary.json"  # written when a run is finished
STATE = "state.pt"  # of an unfinished one (trainers.runs.checkpoint)


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is needed to use a checkpoint, stored beside it as JSON."""

    backbone: str
    classes: list[str]
    positive: str | None = None  # the class of a binary submodel
    preprocess: PreprocessSpec
    dropout: float
    flip: bool = False
    data_fingerprint: str
    seed: int
    epoch: int
    code_version: str

    def as_config(self) -> dict[str, Any]:
        """Return what the run's configuration holds of it: all but the epoch."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        del plain["epoch"]
        return plain


def new_sidecar(
    config: NetworkConfig, data: DataSet, spec: PreprocessSpec, recipe: Recipe, positive: str | None = None
) -> Sidecar:
    """Return the sidecar of a run before its first epoch; ``positive`` is the class of a binary submodel."""
    return Sidecar(
        backbone=config.backbone,
        classes=list(data.classes),
        positive=positive,
        preprocess=spec,
        dropout=recipe.dropout,
        flip=config.flip,
        data_fingerprint=data.fingerprint,
        seed=recipe.seed,
        epoch=0,
        code_version=code_version(),
    )


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, read back."""

    folder: Path
    network: Classifier
    sidecar: Sidecar


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run has got so far that something would be lost with it."""
    return any((folder / name).exists() for name in ("last.json", STATE))


def is_started(folder: Path) -> bool:
    """Return whether a folder holds a run that can be resumed, or is finished."""
    return (folder / "config.json").exists()


def read_config(folder: Path) -> dict[str, Any]:
    """Return the settings of a run, as ``config.json`` holds them.

    Raises
    ------
    CanonistiaError
        The folder has no ``config.json``, or a damaged one.
    """
    try:
        content: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except (OSError, json.JSONDecodeError) as error:
        raise CanonistiaError(f"{folder} holds no run (config.json is missing or damaged); train it first") from error
    return content


def write_metrics(folder: Path, rows: Sequence[Metrics]) -> None:
    """Write ``metrics.csv``, one row per epoch; the first row gives the columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "metrics.csv", text.getvalue())


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Return the rows of ``metrics.csv``."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def save_tensors(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file whole."""
    write_bytes(path, serialised({key: value.detach().clone().contiguous() for key, value in state.items()}))


def load_tensors(network: nn.Module, path: Path) -> None:
    """Load the tensors of a file that :func:`save_tensors` wrote.

    Raises
    ------
    CanonistiaError
        The file is missing, damaged, or of another network.
    """
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CanonistiaError(f"{path} does not hold the expected network ({error}); train it again") from error


def save_checkpoint(folder: Path, name: str, state: Mapping[str, torch.Tensor], sidecar: Sidecar) -> None:
    """Write ``<name>.safetensors`` and ``<name>.json``, each replacing an earlier one atomically."""
    save_tensors(folder / f"{name}.safetensors", state)
    write_json(folder / f"{name}.json", msgspec.to_builtins(sidecar))


def read_sidecar(path: Path) -> Sidecar:
    """Return the sidecar of a checkpoint.

    Raises
    ------
    CanonistiaError
        It, or the checkpoint beside it, is missing or of another version.
    """
    if not path.is_file() or not path.with_suffix(".safetensors").is_file():
        raise CanonistiaError(f"{path.parent} holds no finished training ({path.name} is missing); train it first")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sidecar)
    except msgspec.DecodeError as error:
        raise CanonistiaError(f"{path} is not a checkpoint of this version: {error}") from error


def load_run(folder: Path, checkpoint: str = "last") -> TrainedRun:
    """Return the network of a run, in evaluation mode.

    Raises
    ------
    CanonistiaError
        The folder holds no such checkpoint, or one that this version cannot read.
    """
    _recover(folder)
    path = folder / f"{checkpoint}.json"
    sidecar = read_sidecar(path)
    outputs = 1 if sidecar.positive else len(sidecar.classes)
    config = NetworkConfig(sidecar.backbone, size=sidecar.preprocess.size, flip=sidecar.flip, pretrained=False)
    network = build_classifier(config, outputs, sidecar.dropout)
    load_tensors(network, path.with_suffix(".safetensors"))
    return TrainedRun(folder, network.eval(), sidecar)


def put_back(folder: Path) -> None:
    """Put back an earlier run that was moved aside, unless the new one has a checkpoint; the caller holds the lock."""
    if aside(folder).is_dir() and not has_checkpoint(folder):
        remove(folder)
        restore(folder)


def _recover(folder: Path) -> None:
    """Put back a finished run that a killed --overwrite had moved aside, unless that is still running."""
    if aside(folder).is_dir():
        with contextlib.suppress(CanonistiaError, OSError), exclusive(folder):
            put_back(folder)


def code_version() -> str:
    """Return the installed version of canonistia."""
    try:
        return version("canonistia")
    except PackageNotFoundError:
        return "source"


def check_same_data(folder: Path, data: DataSet, run: TrainedRun) -> None:
    """Raise CanonistiaError unless a run was trained on this data set."""
    if list(data.classes) != run.sidecar.classes:
        raise CanonistiaError(
            f"{folder} has the classes {', '.join(data.classes)}; the run {run.folder} was trained on "
            f"{', '.join(run.sidecar.classes)}"
        )
    if data.fingerprint != run.sidecar.data_fingerprint:
        raise CanonistiaError(
            f"{folder} has changed since the run {run.folder} was trained: that run may have been trained on pictures "
            "that are now for validation; train again, or give the data set of that run"
        )
