"""The check of an ONNX file before ONNX Runtime opens it: known operators, whole weights, sizes that a model has."""

import math
from collections import defaultdict
from itertools import islice

from cascade.bundle.protobuf import Value, fields, packed

# Tensors in, tensors out. Not among them: what holds a graph of its own (If, Loop, Scan), text, and random numbers.
_NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BitShift
    BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Compress Concat Constant ConstantOfShape
    Conv ConvInteger ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div Dropout
    DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
    HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul
    Neg NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize Round ScatterElements ScatterND Selu SequenceAt Shape Shrink Sigmoid Sign Sin Sinh Size Slice
    Softmax Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu
    Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
OPERATORS = frozenset(_NAMES.split())
DOMAINS = ("", "ai.onnx")
MAX_NODES = 20_000
MAX_NODE_BYTES = 16_000_000  # of all nodes and inputs together, which are looked at one by one
MAX_FIELDS = 200_000  # of one message
MAX_AXES = 16
MAX_CONSTANT_NODES = 4_000  # that ONNX Runtime may compute while it opens the file
MAX_SETTING = 65_536  # of a kernel, a stride, a padding
MAX_SIZE = 2**24  # of one axis that the graph itself makes
MAX_INPUT = 2**31  # elements of an input whose shape is fixed

# Field numbers of onnx.proto.
_MODEL = {"graph": 7, "training_info": 20, "functions": 25}
_GRAPH = {"node": 1, "initializer": 5, "input": 11, "sparse_initializer": 15}
_NODE = {"input": 1, "output": 2, "op_type": 4, "attribute": 5, "domain": 7}
_ATTRIBUTE = {"name": 1, "i": 3, "t": 5, "g": 6, "ints": 8, "tensors": 10, "graphs": 11, "sparse": 22, "sparses": 23}
_TENSOR = {"dims": 1, "data_type": 2, "int64_data": 7, "name": 8, "raw_data": 9, "external": 13, "location": 14}
_INT64 = 7
_FROM_SIZES = ("ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad", "OneHot")
_STORED = frozenset(("Constant", "DequantizeLinear"))  # hold weights, and make nothing larger of them
_SHAPE_SIZES = 64  # numbers; longer tensors are no shapes
_NO_END = (2**63 - 1, -(2**63))  # "to the end", in slices

_Message = dict[int, list[Value]]


class GraphError(ValueError):
    """An ONNX file holds what no model of a bundle holds; the message says what, in a few words."""


def check_graph(content: bytes) -> None:
    """Check an ONNX file without its weights: nothing is loaded, and nothing is computed.

    Parameters
    ----------
    content
        The bytes of the file.

    Raises
    ------
    GraphError
        The file is no ONNX file, has an operator that is not among ``OPERATORS``, keeps weights in another file,
        declares sizes that its bytes do not have, or makes tensors that no model needs.
    """
    try:
        model = _message(memoryview(content))
        for unknown in ("training_info", "functions"):
            if model[_MODEL[unknown]]:
                raise GraphError(f"it has {unknown}, as no exported model has")
        if not model[_MODEL["graph"]]:
            raise GraphError("it has no graph")
        for graph in model[_MODEL["graph"]]:
            _check_graph(_message(_bytes(graph)))
    except GraphError:
        raise
    except (ValueError, TypeError) as error:
        raise GraphError(f"it is no ONNX file ({error})") from error


def _check_graph(graph: _Message) -> None:
    if graph[_GRAPH["sparse_initializer"]]:
        raise GraphError("it has sparse weights, as no exported model has")
    walked = [_bytes(value) for kind in ("node", "input") for value in graph[_GRAPH[kind]]]
    if len(walked) > MAX_NODES or sum(map(len, walked)) > MAX_NODE_BYTES:
        raise GraphError(f"it has more than {MAX_NODES:,} nodes, or more than {MAX_NODE_BYTES:,} bytes of them")
    for declared in graph[_GRAPH["input"]]:
        _check_input(_bytes(declared))
    known: dict[str, list[int]] = {}  # constants by name, with their numbers where they may be a shape
    for initializer in graph[_GRAPH["initializer"]]:
        name, numbers = _tensor(_bytes(initializer))
        known[name] = numbers
    constant_nodes = 0
    for node in graph[_GRAPH["node"]]:
        constant_nodes += _check_node(_message(_bytes(node)), known)
    if constant_nodes > MAX_CONSTANT_NODES:
        raise GraphError(f"more than {MAX_CONSTANT_NODES:,} of its nodes depend on no picture")


def _check_node(node: _Message, known: dict[str, list[int]]) -> bool:
    """Check a node, add its outputs to the constants if they are, and return whether it computes a constant."""
    names = [_text(value) for value in node[_NODE["op_type"]]]
    for domain in map(_text, node[_NODE["domain"]]):
        if domain not in DOMAINS:
            raise GraphError(f"it has an operator of the domain {domain[:40]!r}")
    for name in names:
        if name not in OPERATORS:
            raise GraphError(f"it has the operator {name[:40]!r}")
    numbers: list[int] = []
    for attribute in node[_NODE["attribute"]]:
        numbers += _check_attribute(_message(_bytes(attribute)))
    inputs = [_text(value) for value in node[_NODE["input"]] if value]
    if not set(names).isdisjoint(_FROM_SIZES):
        sizes = (abs(number) for name in inputs for number in known.get(name, []) if number not in _NO_END)
        if max(sizes, default=0) > MAX_SIZE:
            raise GraphError(f"it makes a tensor of more than {MAX_SIZE:,} elements in one axis")
    is_constant = "Shape" in names or "Size" in names or all(name in known for name in inputs)
    if is_constant:
        known |= {_text(output): numbers for output in node[_NODE["output"]]}
    return is_constant and _STORED.isdisjoint(names)


def _check_attribute(attribute: _Message) -> list[int]:
    """Check an attribute, and return the numbers of a constant that may be a shape."""
    if any(attribute[_ATTRIBUTE[kind]] for kind in ("g", "graphs", "sparse", "sparses")):
        raise GraphError("it has a graph inside of a node, or sparse weights")
    tensors = [*attribute[_ATTRIBUTE["t"]], *attribute[_ATTRIBUTE["tensors"]]]
    numbers = [number for tensor in tensors for number in _tensor(_bytes(tensor))[1]]
    settings = [_signed(number) for field in ("i", "ints") for number in packed(attribute[_ATTRIBUTE[field]])]
    if any(_text(name).startswith("value") for name in attribute[_ATTRIBUTE["name"]]):
        return numbers + settings
    if any(abs(number) > MAX_SETTING for number in settings):
        raise GraphError(f"it has a node with a setting over {MAX_SETTING:,}")
    return []


def _tensor(content: memoryview) -> tuple[str, list[int]]:
    """Return a tensor's name, and its numbers if it may be a shape."""
    tensor = _message(content)
    if tensor[_TENSOR["external"]] or any(tensor[_TENSOR["location"]]):
        raise GraphError("it keeps weights in another file")
    axes = list(islice(packed(tensor[_TENSOR["dims"]]), MAX_AXES + 1))
    if len(axes) > MAX_AXES:
        raise GraphError(f"it has weights with more than {MAX_AXES} axes")
    elements = math.prod(axes)
    if elements > 2 * len(content):  # of the smallest type, two elements take a byte
        raise GraphError(f"it has weights of {elements:,} elements in {len(content):,} bytes")
    numbers: list[int] = []
    if elements <= _SHAPE_SIZES and _INT64 in tensor[_TENSOR["data_type"]]:
        numbers = [_signed(number) for number in islice(packed(tensor[_TENSOR["int64_data"]]), _SHAPE_SIZES)]
        for raw in map(_bytes, tensor[_TENSOR["raw_data"]]):
            ends = range(8, min(len(raw), 8 * _SHAPE_SIZES) + 1, 8)
            numbers += [int.from_bytes(raw[end - 8 : end], "little", signed=True) for end in ends]
    name = tensor[_TENSOR["name"]]
    return (_text(name[-1]) if name else ""), numbers


def _check_input(content: memoryview) -> None:
    """Check the declared shape of a graph's input: name, type {tensor {element type, shape {dim {size}}}}."""
    elements = 1
    for kind in _message(content)[2]:
        for tensor in _message(_bytes(kind))[1]:
            for shape in _message(_bytes(tensor))[2]:
                for axis in _message(_bytes(shape))[1]:
                    sizes = [size for size in _message(_bytes(axis))[1] if isinstance(size, int)]
                    elements = min(MAX_INPUT + 1, elements * math.prod(sizes[:1]))
    if elements > MAX_INPUT:
        raise GraphError(f"it takes an input of more than {MAX_INPUT:,} elements")


def _message(content: memoryview) -> _Message:
    found: _Message = defaultdict(list)
    for count, (number, value) in enumerate(fields(content)):
        if count == MAX_FIELDS:
            raise GraphError(f"it has a part of more than {MAX_FIELDS:,} fields")
        found[number].append(value)
    return found


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise TypeError("a number stands where a message belongs")
    return value


def _text(value: Value) -> str:
    return str(_bytes(value), "utf-8")


def _signed(number: int) -> int:
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number
