"""The graph of a frozen backbone: a network written as an ONNX file, and its features by ONNX Runtime."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from cascade.inference.sessions import session_options
from trainers.networks.classifier import FeatureNetwork

N = TypeVar("N", bound=FeatureNetwork)

# The oldest operator set that the exporter can write, for the widest choice of runtimes.
OPSET = 18


class FeatureGraph(nn.Module):
    """uint8 pixels (N, H, W, 3) to pooled features (N, D)."""

    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        return self.network.features(pixels)


class RuntimeFeatures:
    """An output of a graph file in ONNX Runtime, one thread per call; safe to call from several threads.

    On a CPU it is several times as fast as the same network in PyTorch, and it is what will serve.
    """

    def __init__(self, path: Path, output: str = "features") -> None:
        self._output = output
        self._session = onnxruntime.InferenceSession(path, session_options(1), providers=["CPUExecutionProvider"])

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:
        """Return the features (N, D), or what the output is, of pixels, uint8 (N, size, size, 3)."""
        (features,) = self._session.run([self._output], {"pixels": pixels})
        return torch.from_numpy(features)


def write_features(network: FeatureNetwork, size: int, path: Path) -> None:
    """Write a frozen backbone as a graph from pixels to ``features`` (see :func:`write_onnx`)."""
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    write_onnx(FeatureGraph(network), example, "pixels", ("features",), path)


def temporary_graph(network: N, size: int, write: Callable[[N, int, Path], None] = write_features) -> RuntimeFeatures:
    """Return a frozen backbone in ONNX Runtime, by way of a temporary graph file that ``write`` writes.

    Raises
    ------
    torch.onnx.OnnxExporterError
        The network has a part that cannot be exported.
    OSError
        There is no room for the graph's file in the folder of temporary files.
    """
    with TemporaryDirectory(prefix="canonistia-") as folder:
        path = Path(folder, "features.onnx")
        write(network, size, path)
        return RuntimeFeatures(path)


def write_onnx(graph: nn.Module, example: torch.Tensor, input_name: str, outputs: Sequence[str], path: Path) -> None:
    """Write a graph as one self-contained ONNX file with a dynamic batch.

    Parameters
    ----------
    example
        An input of the right shape and type; its first dimension becomes the dynamic batch.
    """
    # The exporter logs warnings that users cannot act on (deprecated calls, missing optional packages).
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _out_of_place(graph):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval().cpu(),
            (example,),
            path,
            input_names=[input_name],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _strip_traces(path)


@contextmanager
def _out_of_place(graph: nn.Module) -> Iterator[None]:
    """Let activations return new tensors: the same values, and a graph that is captured in half the time.

    In place, each is taken apart into operations on symbolic shapes before the exporter puts it together again.
    """
    in_place = [module for module in graph.modules() if getattr(module, "inplace", None) is True]
    for module in in_place:
        setattr(module, "inplace", False)  # noqa: B010  (no attribute of every module)
    try:
        yield
    finally:
        for module in in_place:
            setattr(module, "inplace", True)  # noqa: B010


def _strip_traces(path: Path) -> None:
    """Remove what the exporter records on every node: stack traces with file paths of the exporting machine."""
    model = onnx.load(path)
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, path)
