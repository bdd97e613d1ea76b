"""The run folder: configuration, metrics, curves and checkpoints of one training, each file written whole."""

import csv
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file

from cascade.errors import CanonistiaError
from cascade.preprocess import PreprocessSpec
from trainers.network import Classifier, build_classifier

Metrics = Mapping[str, float]


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is needed to use a checkpoint, stored beside it as JSON."""

    backbone: str
    classes: list[str]
    positive: str | None = None  # the class of a binary submodel
    preprocess: PreprocessSpec
    dropout: float
    data_fingerprint: str
    seed: int
    epoch: int
    code_version: str

    def as_config(self) -> dict[str, Any]:
        """Return what the run's configuration holds of it: all but the epoch."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        del plain["epoch"]
        return plain


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, read back."""

    folder: Path
    network: Classifier
    sidecar: Sidecar


def create_run(folder: Path, overwrite: bool) -> None:
    """Make an empty run folder.

    Raises
    ------
    CanonistiaError
        It exists with something inside and ``overwrite`` is not set, or it cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            if not overwrite or not (folder / "config.json").exists():
                raise CanonistiaError(f"{folder} is not empty; choose another --out, or --overwrite an earlier run")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CanonistiaError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole: a reader sees the old content or the new, never a part."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def append_metrics(folder: Path, row: Mapping[str, float]) -> None:
    """Add one epoch's row to ``metrics.csv``; the first row gives the columns."""
    path = folder / "metrics.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Return the rows of ``metrics.csv``."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def save_tensors(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file whole."""
    partial = path.with_name(path.name + ".partial")
    save_file({key: value.detach().contiguous() for key, value in state.items()}, partial)
    os.replace(partial, path)


def save_checkpoint(folder: Path, name: str, state: Mapping[str, torch.Tensor], sidecar: Sidecar) -> None:
    """Write ``<name>.safetensors`` and ``<name>.json``, each replacing an earlier one at once."""
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
    path = folder / f"{checkpoint}.json"
    sidecar = read_sidecar(path)
    outputs = 1 if sidecar.positive else len(sidecar.classes)
    network = build_classifier(sidecar.backbone, outputs, sidecar.dropout, pretrained=False)
    network.load_state_dict(load_file(path.with_suffix(".safetensors")))
    return TrainedRun(folder, network.eval(), sidecar)


def plot_curves(folder: Path, rows: Sequence[Metrics], title: str) -> None:
    """Draw the run's curves into ``curves.png``: losses left, the validation scores right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    for key in rows[0]:
        axes = losses if key.endswith("loss") else scores
        if key.startswith(("training_", "validation_")):
            axes.plot(epochs, [row[key] for row in rows], label=key.replace("_", " "))
    for axes, name in ((losses, "loss"), (scores, "score")):
        axes.set(xlabel="epoch", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(folder / "curves.png", dpi=110)


def code_version() -> str:
    """Return the installed version of canonistia."""
    try:
        return version("canonistia")
    except PackageNotFoundError:
        return "source"
