"""8-bit networks: an ONNX file rewritten with integer weights and activations."""

import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

# How the range of a tensor is calibrated on pictures: the full range, the range that loses the least information
# (after Migacz, 8-bit inference with TensorRT), or the range without the most extreme values.
METHODS = {
    "min-max": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
# With Clip and Relu among them a convolution takes the range after its activation, which makes that node redundant.
_OPERATORS = ("Conv", "MatMul", "Gemm", "Add", "Clip", "Relu", "MaxPool")
_PERCENTILE = 99.99
# The first convolutions have few channels with very different ranges: most of the error, and little of the time.
_FLOAT_CONVOLUTIONS = 3
_LARGE_MATRIX = 65_536  # elements


class _Batches(CalibrationDataReader):
    """Feeds batches of pixels to the calibration."""

    def __init__(self, batches: Sequence[np.ndarray]) -> None:
        self._batches = batches
        self._left: Iterator[np.ndarray] = iter(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Restrict what follows to these batches."""
        self._left = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, keyed by the name of the network's input."""
        batch = next(self._left, None)
        return None if batch is None else {"pixels": batch}


def quantize_network(network: Path, path: Path, batches: Sequence[np.ndarray], method: str, dot_products: bool) -> None:
    """Write a network with 8-bit weights, one scale per channel, and 8-bit activations in calibrated ranges.

    The first convolutions, and everything after the pooled features (heads, distances, calibration), stay in floating
    point: they take little time, and small differences matter there. Large matrices after the features are stored
    with 8 bits and computed in floating point.

    Parameters
    ----------
    batches
        uint8 pixels (N, H, W, 3) to calibrate on; memory holds the activations of one batch at a time.
    method
        One of ``METHODS``.
    dot_products
        Whether the processor adds products of bytes without overflow; if not, weights have 7 bits.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(network, prepared, skip_symbolic_shape=True)
        with _silence():
            quantize_static(
                prepared,
                path,
                _Batches(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATORS),
                nodes_to_exclude=_kept_in_float(onnx.load(prepared)),
                per_channel=True,
                reduce_range=not dot_products,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=METHODS[method],
                extra_options={"CalibStridedMinMax": 1, "CalibPercentile": _PERCENTILE},
            )
    _pack_matrices(path)


def _pack_matrices(path: Path) -> None:
    """Store large float matrices with 8 bits, one scale per column; the runtime unpacks them when it opens the file."""
    model = onnx.load(path)
    graph = model.graph
    for tensor in list(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 2 or np.prod(tensor.dims) < _LARGE_MATRIX:
            continue
        matrix = onnx.numpy_helper.to_array(tensor)  # (M, N)
        scale = np.maximum(np.abs(matrix).max(axis=0), np.finfo(np.float32).tiny) / 127  # (N,)
        packed = {"packed": np.rint(matrix / scale).astype(np.int8), "scale": scale.astype(np.float32)}
        graph.initializer.remove(tensor)
        graph.initializer.extend(
            onnx.numpy_helper.from_array(value, f"{tensor.name}.{part}") for part, value in packed.items()
        )
        inputs = [f"{tensor.name}.{part}" for part in packed]
        graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", inputs, [tensor.name], axis=1))
    onnx.save(model, path)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep off the terminal what the library prints and logs about every tensor."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)


def relative_error(network: Path, other: Path, batches: Sequence[np.ndarray]) -> float:
    """Return the squared error of another form's features, relative to the squared features of the network."""
    sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (network, other)]
    output = compared_output(onnx.load(network))
    error = total = 0.0
    for batch in batches:
        exact, rounded = (session.run([output], {"pixels": batch})[0] for session in sessions)
        error += float(np.square(exact - rounded).sum())
        total += float(np.square(exact).sum())
    return error / total


def compared_output(model: onnx.ModelProto) -> str:
    """Return the output whose change is measured: pooled features if the graph has them, or else its logits."""
    names = [output.name for output in model.graph.output]
    return next(name for name in ("features", "logits", "logit") if name in names)


def _kept_in_float(model: onnx.ModelProto) -> list[str]:
    """Return the names of the first convolutions, and of all nodes that the features do not depend on."""
    producers = {name: node for node in model.graph.node for name in node.output}
    end = compared_output(model)
    if end != "features":
        node = producers[end]
        while node.op_type not in ("Gemm", "MatMul"):  # the head, which the calibration follows
            node = producers[node.input[0]]
        end = node.input[0]
    needed: set[str] = set()
    open_ends = [end]
    while open_ends:
        producer = producers.get(open_ends.pop())
        if producer is not None and producer.name not in needed:
            needed.add(producer.name)
            open_ends.extend(producer.input)
    first = [node.name for node in model.graph.node if node.op_type == "Conv"][:_FLOAT_CONVOLUTIONS]
    return [*first, *(node.name for node in model.graph.node if node.name not in needed)]
