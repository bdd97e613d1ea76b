"""The model files of a bundle: what is written, and what the manifest says of each."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from cascade.bundle.manifest import Calibration, PixelModel, Submodel
from cascade.bundle.reading import describe_file
from cascade.images.preprocess import PreprocessSpec
from export.fitting.calibration import Calibrators
from export.fitting.measure import Measurement
from export.graphs.distance import ClassDistances
from export.graphs.modules import MainGraph, SubmodelGraph, TrunkGraph, write_like, write_onnx
from trainers.progress import track
from trainers.runs.folder import TrainedRun
from trainers.runs.submodels import Submodels


@dataclass(frozen=True)
class SubmodelFile:
    """A submodel below the bundle's folder; preprocessing and backbone only where it has a network of its own."""

    path: str
    preprocess: PreprocessSpec | None
    backbone: str | None


@dataclass(frozen=True)
class ModelFiles:
    """The files written: of the main model, the shared trunk if there is one, and each submodel."""

    main: PixelModel
    trunk: PixelModel | None
    submodels: list[SubmodelFile]


def write_models(
    folder: Path, main: TrainedRun, submodels: Submodels, calibrators: Calibrators, fitted: ClassDistances
) -> ModelFiles:
    """Write every graph of a bundle into its folder, with the calibration inside."""
    (folder / "submodels").mkdir()
    seen = main.sidecar.preprocess
    graph = MainGraph(main.network, calibrators.temperature, fitted)
    write_onnx(graph, _pixels(seen), "pixels", graph.outputs, folder / "main.onnx")
    common = submodels.common
    trunk = None
    if submodels.trunk:
        write_onnx(
            TrunkGraph(submodels.trunk), _pixels(common.preprocess), "pixels", ("features",), folder / "trunk.onnx"
        )
        trunk = PixelModel(describe_file(folder, "trunk.onnx"), common.preprocess, common.backbone)
    written: list[SubmodelFile] = []
    for index, label in track(list(enumerate(main.sidecar.classes)), "exporting submodels"):
        head = SubmodelGraph(submodels.networks[index], calibrators.slopes[index], calibrators.intercepts[index])
        example = torch.zeros(2, submodels.head_inputs) if submodels.trunk else _pixels(common.preprocess)
        path = f"submodels/{index:02d}_{re.sub(r'[^a-z0-9]+', '_', label.lower())}.onnx"
        if trunk and written:  # linear heads have one graph, and exporting one takes a second or two
            values = {name: value.numpy() for name, value in head.state_dict().items()}
            write_like(folder / written[0].path, folder / path, values)
        else:
            write_onnx(head, example, "features" if trunk else "pixels", ("probability", "logit"), folder / path)
        preprocess_and_backbone = (None, None) if trunk else (common.preprocess, common.backbone)
        written.append(SubmodelFile(path, *preprocess_and_backbone))
    return ModelFiles(PixelModel(describe_file(folder, "main.onnx"), seen, main.sidecar.backbone), trunk, written)


def measured_submodels(
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
    """Return what the manifest says of the calibration."""
    curves = zip(calibrators.slopes, calibrators.intercepts, strict=True)
    return Calibration(
        temperature=calibrators.temperature,
        submodels={
            label: (float(slope), float(intercept)) for label, (slope, intercept) in zip(classes, curves, strict=True)
        },
    )


def _pixels(spec: PreprocessSpec) -> torch.Tensor:
    return torch.zeros(2, spec.size, spec.size, 3, dtype=torch.uint8)
