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
from export.fitting.calibration import Calibrators
from export.fitting.measure import Measurement
from export.graphs.distance import ClassDistances
from export.graphs.modules import MainGraph, SubmodelGraph, write_like
from trainers.features.graph import FeatureGraph, write_onnx
from trainers.runs.folder import TrainedRun
from trainers.runs.submodels import Submodels


@dataclass(frozen=True)
class SubmodelFile:
    """A submodel's path in the bundle's folder; preprocessing and backbone only if it has its own network."""

    path: str
    preprocess: PreprocessSpec | None
    backbone: str | None


@dataclass(frozen=True)
class ModelFiles:
    """The written files: the main model, the shared trunk if there is one, and each submodel."""

    main: PixelModel
    trunk: PixelModel | None
    submodels: list[SubmodelFile]


def write_models(
    folder: Path, main: TrainedRun, submodels: Submodels, calibrators: Calibrators, fitted: ClassDistances
) -> ModelFiles:
    """Write every graph of a bundle into its folder."""
    (folder / "submodels").mkdir()
    spec = main.sidecar.preprocess
    graph = MainGraph(main.network, fitted)
    write_onnx(graph, _example_pixels(spec), "pixels", graph.outputs, folder / "main.onnx")
    common = submodels.common
    trunk = None
    if submodels.trunk:
        write_onnx(
            FeatureGraph(submodels.trunk),
            _example_pixels(common.preprocess),
            "pixels",
            ("features",),
            folder / "trunk.onnx",
        )
        trunk = PixelModel(describe_file(folder, "trunk.onnx"), common.preprocess, common.backbone)
    written: list[SubmodelFile] = []
    for index, label in track(list(enumerate(main.sidecar.classes)), "exporting submodels"):
        head = SubmodelGraph(submodels.networks[index], calibrators.slopes[index], calibrators.intercepts[index])
        example = torch.zeros(2, submodels.head_inputs) if submodels.trunk else _example_pixels(common.preprocess)
        path = f"submodels/{index:02d}_{re.sub(r'[^a-z0-9]+', '_', label.lower())}.onnx"
        if trunk and written:  # all linear heads have the same graph, and exporting one takes a second or two
            values = {name: value.numpy() for name, value in head.state_dict().items()}
            write_like(folder / written[0].path, folder / path, values)
        else:
            write_onnx(head, example, "features" if trunk else "pixels", ("probability", "logit"), folder / path)
        preprocess_and_backbone = (None, None) if trunk else (common.preprocess, common.backbone)
        written.append(SubmodelFile(path, *preprocess_and_backbone))
    return ModelFiles(PixelModel(describe_file(folder, "main.onnx"), spec, main.sidecar.backbone), trunk, written)


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
