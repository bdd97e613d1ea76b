"""The model files of a bundle: writing them, and describing them in the manifest."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from cascade.bundle.manifest import Calibration, PixelModel, Submodel
from cascade.bundle.reading import describe_file
from cascade.images.preprocess import PreprocessSpec
from cascade.progress import track
from export.bundles.trained import Graphs, Trained
from export.fitting.calibration import Calibrators
from export.fitting.measure import Measurement
from export.graphs.distance import ClassDistances
from export.graphs.modules import MainGraph, SubmodelGraph, write_like
from trainers.features.graph import RuntimeFeatures, write_onnx
from trainers.features.kept_graphs import write_kept_features

_MAIN, _TRUNK = "main.onnx", "trunk.onnx"


@dataclass(frozen=True)
class SubmodelFile:
    """A submodel's path in the bundle's folder; preprocessing and backbone only if it has its own network."""

    path: str
    preprocess: PreprocessSpec | None
    backbone: str | None


@dataclass(frozen=True)
class NetworkFiles:
    """The written graphs that take pixels: the main model's, and the shared trunk's if there is one."""

    main: PixelModel
    trunk: PixelModel | None
    opened: Graphs


def write_networks(folder: Path, trained: Trained, fitted: ClassDistances) -> NetworkFiles:
    """Write the main model's graph and the trunk's into a bundle's folder."""
    sidecar, common, trunk = trained.main.sidecar, trained.submodels.common, trained.submodels.trunk
    graph = MainGraph(trained.main.network, fitted)
    write_onnx(graph, _example_pixels(sidecar.preprocess), "pixels", graph.outputs, folder / _MAIN)
    if trunk:
        write_kept_features(trunk, common.preprocess.size, folder / _TRUNK)
    maps = RuntimeFeatures(folder / _MAIN, "activation_maps") if "activation_maps" in graph.outputs else None
    opened_trunk = RuntimeFeatures(folder / _TRUNK) if trunk else None
    return NetworkFiles(
        main=PixelModel(describe_file(folder, _MAIN), sidecar.preprocess, sidecar.backbone),
        trunk=PixelModel(describe_file(folder, _TRUNK), common.preprocess, common.backbone) if trunk else None,
        opened=Graphs(RuntimeFeatures(folder / _MAIN), maps, opened_trunk),
    )


def write_submodels(folder: Path, trained: Trained, calibrators: Calibrators) -> list[SubmodelFile]:
    """Write the graph of every submodel, with its calibration inside, into a bundle's folder."""
    (folder / "submodels").mkdir()
    submodels, common = trained.submodels, trained.submodels.common
    written: list[SubmodelFile] = []
    for index, label in track(list(enumerate(common.classes)), "exporting submodels"):
        head = SubmodelGraph(submodels.networks[index], calibrators.slopes[index], calibrators.intercepts[index])
        example = torch.zeros(2, submodels.head_inputs) if submodels.trunk else _example_pixels(common.preprocess)
        path = f"submodels/{index:02d}_{re.sub(r'[^a-z0-9]+', '_', label.lower())}.onnx"
        if submodels.trunk and written:  # all linear heads have the same graph, and exporting one takes a second or two
            values = {name: value.numpy() for name, value in head.state_dict().items()}
            write_like(folder / written[0].path, folder / path, values)
        else:
            inputs = "features" if submodels.trunk else "pixels"
            write_onnx(head, example, inputs, ("probability", "logit"), folder / path)
        preprocess_and_backbone = (None, None) if submodels.trunk else (common.preprocess, common.backbone)
        written.append(SubmodelFile(path, *preprocess_and_backbone))
    return written


def describe_submodels(
    folder: Path, classes: Sequence[str], files: Sequence[SubmodelFile], measurement: Measurement
) -> list[Submodel]:
    """Return the manifest's entry of each submodel."""
    return [
        Submodel(
            label=label,
            file=describe_file(folder, file.path),
            preprocess=file.preprocess,
            backbone=file.backbone,
            **asdict(figures),
        )
        for label, file, figures in zip(classes, files, measurement.submodels, strict=True)
    ]


def describe_calibration(calibrators: Calibrators, classes: Sequence[str]) -> Calibration:
    """Return the manifest's entry of the calibration."""
    curves = zip(calibrators.slopes, calibrators.intercepts, strict=True)
    return Calibration(
        temperature=calibrators.temperature,
        submodels={
            label: (float(slope), float(intercept)) for label, (slope, intercept) in zip(classes, curves, strict=True)
        },
        distance=calibrators.distance,
    )


def _example_pixels(spec: PreprocessSpec) -> torch.Tensor:
    return torch.zeros(2, spec.size, spec.size, 3, dtype=torch.uint8)
