"""8-bit networks: one ONNX file written again with integer weights and activations."""

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

# How the range of a tensor is taken from the pictures: the whole of it, the range that loses least information
# (after Migacz, 8-bit inference with TensorRT), or all but the most extreme values.
METHODS = {
    "min-max": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
# Clip and Relu among them: the range of a convolution is then the one after its activation, and the node is not needed.
_OPERATORS = ("Conv", "MatMul", "Gemm", "Add", "Clip", "Relu", "MaxPool")
_PERCENTILE = 99.99
# The first convolutions have few channels of very different range: they make most of the error and little of the time.
_FLOAT_CONVOLUTIONS = 3
_LARGE_MATRIX = 65_536  # numbers


class _Batches(CalibrationDataReader):
    """Gives batches of pixels to the calibration."""

    def __init__(self, batches: Sequence[np.ndarray]) -> None:
        self._batches = batches
        self._left: Iterator[np.ndarray] = iter(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give these batches next."""
        self._left = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch by the name of the network's input."""
        batch = next(self._left, None)
        return None if batch is None else {"pixels": batch}


def write_integers(network: Path, path: Path, batches: Sequence[np.ndarray], method: str, dot_products: bool) -> None:
    """Write a network with 8-bit weights, one scale a channel, and activations in ranges calibrated on pictures.

    What comes after the pooled features (heads, distances, calibration) stays as it is: it takes no time, and it is
    where small differences count. So do the first convolutions. Large matrices there are stored with 8 bits, and
    computed in floating point.

    Parameters
    ----------
    batches
        uint8 pixels (N, H, W, 3); the activations of one batch are in memory at a time.
    method
        One of ``METHODS``.
    dot_products
        Whether the processor adds products of bytes without overflow; otherwise weights have 7 bits.
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
    """Store large float matrices with 8 bits, one scale a column; the runtime unpacks them when it opens the file."""
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
    """Keep what the library prints about every tensor, and tells the root logger, from the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)


def relative_error(network: Path, other: Path, batches: Sequence[np.ndarray]) -> float:
    """Return how far the features of two forms of a network lie apart: their squared distance over their square."""
    sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (network, other)]
    output = compared_output(onnx.load(network))
    far = total = 0.0
    for batch in batches:
        exact, rounded = (session.run([output], {"pixels": batch})[0] for session in sessions)
        far += float(np.square(exact - rounded).sum())
        total += float(np.square(exact).sum())
    return far / total


def compared_output(model: onnx.ModelProto) -> str:
    """Return the output whose change is measured: pooled features where the graph gives them, or else its logits."""
    names = [output.name for output in model.graph.output]
    return next(name for name in ("features", "logits", "logit") if name in names)


def _kept_in_float(model: onnx.ModelProto) -> list[str]:
    """Return the names of the first convolutions, and of the nodes that the features do not depend on."""
    makers = {name: node for node in model.graph.node for name in node.output}
    end = compared_output(model)
    if end != "features":
        node = makers[end]
        while node.op_type not in ("Gemm", "MatMul"):  # the head, which the calibration follows
            node = makers[node.input[0]]
        end = node.input[0]
    needed: set[str] = set()
    open_ends = [end]
    while open_ends:
        maker = makers.get(open_ends.pop())
        if maker is not None and maker.name not in needed:
            needed.add(maker.name)
            open_ends.extend(maker.input)
    first = [node.name for node in model.graph.node if node.op_type == "Conv"][:_FLOAT_CONVOLUTIONS]
    return [*first, *(node.name for node in model.graph.node if node.name not in needed)]
