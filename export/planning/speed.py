"""The speed of this machine on the user's pictures: measured for some seconds, never assumed."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch

from cascade.files import write_bytes
from cascade.images.decoding import decode
from cascade.images.preprocess import PreprocessSpec
from cascade.threads import processors
from trainers.data.augment import augmentation
from trainers.data.loader import PictureDataset
from trainers.distributed.device import keep_freed_memory, resolve_device
from trainers.features.cache import compute_features, features_by_runtime
from trainers.features.graph import temporary_graph
from trainers.features.kept_graphs import write_and_keep_features
from trainers.loop.step_time import chosen_precision, head_step_seconds, step_seconds
from trainers.networks.backbones import backbone_spec
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import MAIN_DEFAULTS, Recipe

T = TypeVar("T")

_SAMPLE = 32  # pictures
_FEW = 8  # pictures of what is slow: steps and passes in PyTorch
_ROWS = 256
_HEAD_BYTES = 20_000


@dataclass(frozen=True)
class NetworkSpeed:
    """Seconds of a network on the CPU: to write its graph, and per picture by ONNX Runtime and by PyTorch.

    ``gpu`` are those per picture on the GPU that trains, where there is one. All include decoding.
    """

    export: float
    runtime: float
    pytorch: float
    gpu: float | None = None

    @property
    def validation(self) -> float:
        """Return the seconds per validation picture after an epoch of fine-tuning."""
        return self.pytorch if self.gpu is None else self.gpu


@dataclass(frozen=True)
class TuningSpeed:
    """The precision in which a network is fine-tuned, and the seconds of that per picture, decoding included."""

    precision: str
    seconds: float


class Machine:
    """This machine; what is asked for is measured once.

    Parameters
    ----------
    pictures
        Training pictures; some of them, evenly spread, are the sample.
    classes
        The number of classes.
    folder
        Where the runs will be written.
    """

    def __init__(self, pictures: Sequence[Path], classes: int, folder: Path) -> None:
        self._folder = folder
        self._sample = [pictures[i] for i in np.linspace(0, len(pictures) - 1, _SAMPLE).astype(int)]
        self._classes = classes
        self._device = resolve_device("auto")
        self._networks: dict[NetworkConfig, Classifier] = {}
        self._known: dict[object, Any] = {}
        keep_freed_memory()

    def reading(self) -> float:
        """Return the seconds to decode a picture, on all processors."""
        return self._once("reading", self._reading)

    def writing(self, config: NetworkConfig | None) -> float:
        """Return the seconds to write the files of an epoch: those of a network, or of a head alone."""
        size = 4 * sum(value.numel() for value in self._network(config).parameters()) if config else _HEAD_BYTES
        return self._once(("writing", config), lambda: self._writing(size))

    def head_step(self, features: int) -> float:
        """Return the seconds of a training step of a linear head."""
        return self._once(("head", features), lambda: head_step_seconds(features, self._classes, MAIN_DEFAULTS))

    def linear_pass(self, features: int) -> float:
        """Return the seconds per picture of one evaluation of a linear classifier, its gradient included."""
        return self._once(("linear", features), lambda: self._linear_pass(features))

    def features(self, config: NetworkConfig) -> int:
        """Return how many features a network has."""
        return self._network(config).backbone.features

    def speed(self, config: NetworkConfig) -> NetworkSpeed:
        """Return how fast a network computes features."""
        return self._once(config, lambda: self._speed(config))

    def tuning(self, config: NetworkConfig, recipe: Recipe) -> TuningSpeed:
        """Return how fast a network is fine-tuned, in the faster precision."""
        return self._once((config, recipe.unfreeze), lambda: self._tuning(config, recipe))

    def _once(self, key: object, measure: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = measure()
        return self._known[key]

    def _reading(self) -> float:
        with ThreadPoolExecutor(processors()) as pool:
            return _timed(lambda: list(pool.map(decode, self._sample)))[0] / _SAMPLE

    def _writing(self, size: int) -> float:
        with TemporaryDirectory(prefix=".canonistia-", dir=self._folder) as folder:

            def seconds(count: int) -> float:
                return _timed(lambda: write_bytes(Path(folder, "file"), bytes(count)))[0]

            # The last and the best checkpoint; their sidecars, the metrics and the state.
            return 2 * seconds(size) + 4 * seconds(_HEAD_BYTES)

    def _linear_pass(self, features: int) -> float:
        inputs, weights = torch.rand(_ROWS, features), torch.rand(features, self._classes)
        _timed(lambda: inputs.T @ (inputs @ weights))
        return _timed(lambda: inputs.T @ (inputs @ weights))[0] / _ROWS

    def _tuning(self, config: NetworkConfig, recipe: Recipe) -> TuningSpeed:
        network, spec, few = self._network(config), _spec(config), self._sample[:_FEW]
        precision = chosen_precision(recipe, network, spec.size, self._device)
        step = step_seconds(network, spec.size, replace(recipe, precision=precision), self._device, _FEW)
        pictures = PictureDataset(
            few, np.zeros(_FEW, dtype=np.int64), spec, augmentation(recipe.augment, spec.size), seed=recipe.seed
        )
        loading = _timed(lambda: [pictures[i, 1.0, 1] for i in range(_FEW)])[0]
        return TuningSpeed(precision, (step + loading) / _FEW)

    def _speed(self, config: NetworkConfig) -> NetworkSpeed:
        network, spec, few = self._network(config), _spec(config), self._sample[:_FEW]
        name = network.backbone_name

        def in_pytorch(device: str) -> float:
            return _timed(lambda: compute_features(network, few, spec, device, library="pytorch"))[0] / _FEW

        in_pytorch(self._device)  # the first pass allocates
        gpu = None if self._device == "cpu" else in_pytorch(self._device)
        pytorch = in_pytorch("cpu")
        try:
            # Anew, also where it is kept: much of the plan is reckoned in the time that this takes.
            export, backbone = _timed(lambda: temporary_graph(network, spec.size, write_and_keep_features))
        except (torch.onnx.OnnxExporterError, OSError):
            return NetworkSpeed(0.0, pytorch, pytorch, gpu)  # as the training will do
        features_by_runtime(backbone, name, few, spec)
        runtime = _timed(lambda: features_by_runtime(backbone, name, self._sample, spec))[0]
        return NetworkSpeed(export, runtime / _SAMPLE, pytorch, gpu)

    def _network(self, config: NetworkConfig) -> Classifier:
        if config not in self._networks:
            self._networks[config] = build_classifier(config, self._classes, MAIN_DEFAULTS.dropout)
        return self._networks[config]


def _spec(config: NetworkConfig) -> PreprocessSpec:
    backbone = backbone_spec(config.backbone)
    return PreprocessSpec(
        size=config.size or backbone.size,
        resize=config.resize,
        interpolation=backbone.interpolation,
        crop=1.0,
        colour="rgb",
    )


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result
