"""The folder of submodels that ``train-sub`` writes and ``export`` reads."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
from torch import nn

from cascade.errors import CanonistiaError
from cascade.files import write_json
from cascade.images.labels import file_name
from cascade.images.preprocess import PreprocessSpec
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig
from trainers.runs.folder import load_run, load_tensors, read_sidecar, save_tensors

_MANIFEST = "submodels.json"
_TRUNK = "trunk.safetensors"
TRUNK_CONFIG = "trunk.json"  # how the trunk was trained, when it was fine-tuned


class MainFeatures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The main model's features that heads read: how many, and the sha256 of all that they depend on."""

    count: int
    sha256: str


class SubmodelSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the submodels of one folder have in common.

    ``shared``: one frozen trunk, and one linear head per class, which may read the main model's features after the
    trunk's; ``own``: one whole network per class.
    """

    kind: Literal["shared", "own"]
    backbone: str
    preprocess: PreprocessSpec
    classes: list[str]
    data_fingerprint: str
    backbone_sha256: str  # of the trunk's weights, or of those that every own network started from
    flip: bool = False
    main_features: MainFeatures | None = None

    @property
    def network_config(self) -> NetworkConfig:
        """Return the network of the trunk, or of each submodel, before its weights are loaded."""
        return NetworkConfig(self.backbone, size=self.preprocess.size, flip=self.flip, pretrained=False)


@dataclass(frozen=True)
class Submodels:
    """The trained submodels of every class, in evaluation mode, in the order of the classes."""

    common: SubmodelSet
    trunk: Classifier | None
    networks: list[nn.Module]  # heads on features, or whole networks on pixels

    @property
    def head_inputs(self) -> int:
        """Return how many features a head reads."""
        main = self.common.main_features
        return (self.trunk.backbone.features if self.trunk else 0) + (main.count if main else 0)


def class_run(folder: Path, label: str) -> Path:
    """Return the run folder of one class's submodel."""
    return folder / "classes" / file_name(label)


def check_set(folder: Path, common: SubmodelSet) -> None:
    """Raise CanonistiaError when a folder holds submodels that ``common`` does not describe."""
    if not (folder / _MANIFEST).exists():
        return
    there = read_submodel_set(folder)
    changed = [name for name in SubmodelSet.__struct_fields__ if getattr(there, name) != getattr(common, name)]
    if changed:
        raise CanonistiaError(f"{folder} holds submodels with another {', '.join(changed)}; choose another --out")


def join_set(folder: Path, common: SubmodelSet, trunk: Classifier, trunk_run: Path | None) -> None:
    """Start a folder of submodels, unless it has been started (see :func:`check_set`).

    ``trunk_run`` is the run that fine-tuned the trunk, whose settings are kept beside it.

    Raises
    ------
    CanonistiaError
        The folder cannot be written.
    """
    if (folder / _MANIFEST).exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if common.kind == "shared":
            save_tensors(folder / _TRUNK, trunk.backbone.state_dict())
        if trunk_run:
            shutil.copyfile(trunk_run / "config.json", folder / TRUNK_CONFIG)
        write_json(folder / _MANIFEST, msgspec.to_builtins(common))
    except OSError as error:
        raise CanonistiaError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error


def read_submodel_set(folder: Path) -> SubmodelSet:
    """Return what the submodels of a folder have in common.

    Raises
    ------
    CanonistiaError
        The folder was not written by ``train-sub``.
    """
    path = folder / _MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=SubmodelSet)
    except (OSError, msgspec.DecodeError) as error:
        raise CanonistiaError(
            f"{folder} holds no submodels ({_MANIFEST} is missing or damaged); run train-sub"
        ) from error


def load_submodels(folder: Path) -> Submodels:
    """Return the trained submodels of a folder.

    Raises
    ------
    CanonistiaError
        A class has none yet, or the folder was not written by ``train-sub``.
    """
    common = read_submodel_set(folder)
    missing = [label for label in common.classes if not (class_run(folder, label) / "last.json").exists()]
    if missing:
        raise CanonistiaError(f"{folder} lacks a submodel for {', '.join(missing)}; run train-sub for these classes")
    if common.kind == "own":
        networks: list[nn.Module] = [load_run(class_run(folder, label)).network for label in common.classes]
        return Submodels(common, None, networks)
    submodels = Submodels(common, load_trunk(folder, common).eval(), [])
    heads = [_load_head(class_run(folder, label), submodels.head_inputs) for label in common.classes]
    return replace(submodels, networks=heads)


def load_trunk(folder: Path, common: SubmodelSet) -> Classifier:
    """Return the trunk that the submodels of a folder share.

    Raises
    ------
    CanonistiaError
        The trunk's file is missing or damaged, or every submodel has its own network.
    """
    if common.kind == "own":
        raise CanonistiaError(
            f"the submodels of {folder} share no trunk; train the new one with train-sub --own-networks"
        )
    trunk = build_classifier(common.network_config, 1)
    load_tensors(trunk.backbone, folder / _TRUNK)
    return trunk


def copy_set(folder: Path, out: Path, common: SubmodelSet, labels: Sequence[str]) -> None:
    """Copy the trunk and the submodels of some classes into a new folder, described by ``common``.

    Raises
    ------
    CanonistiaError
        A class has no finished submodel, or the new folder cannot be written.
    """
    missing = [label for label in labels if not (class_run(folder, label) / "last.json").exists()]
    if missing:
        raise CanonistiaError(f"{folder} lacks a submodel for {', '.join(missing)}; run train-sub for these classes")
    try:
        out.mkdir(parents=True)
        for name in (_TRUNK, TRUNK_CONFIG):
            if (folder / name).exists():
                shutil.copyfile(folder / name, out / name)
        for label in labels:
            shutil.copytree(class_run(folder, label), class_run(out, label))
        write_json(out / _MANIFEST, msgspec.to_builtins(common))
    except OSError as error:
        raise CanonistiaError(f"{out} cannot be written ({error}); choose another --out") from error


def _load_head(run: Path, features: int) -> nn.Module:
    read_sidecar(run / "last.json")
    head = nn.Linear(features, 1)
    load_tensors(head, run / "last.safetensors")
    return head.eval()
