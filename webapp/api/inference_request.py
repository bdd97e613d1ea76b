"""The inference request: its message, and the pictures of its tensor, sent as JSON or as raw bytes after the JSON."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from cascade.images.decoding import DecodingCost
from webapp.problems import Problem
from webapp.requests.bodies import TENSOR_HEADER, too_large
from webapp.requests.connection import client_address
from webapp.requests.state import state
from webapp.requests.uploads import check_count

INPUT = "pixels"
_VALUE_BYTES = 24  # that a value takes while its text is read: a list's place, the array, and the text
_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Flat = list[_Byte]
_Nested = list[list[list[list[_Byte]]]]

# What a request says beside its data is short; a longer text is refused before anything is made of it.
_MAX_TEXT = 4096  # bytes
_Name = Annotated[str, msgspec.Meta(max_length=256)]
_Parameters = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": ["object", "null"]})]
_Requested = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        extra_json_schema={"type": ["array", "null"], "items": {"$ref": "#/components/schemas/RequestedOutput"}}
    ),
]
_Size = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


def _null() -> msgspec.Raw:
    return msgspec.Raw(b"null")


class InputTensor(msgspec.Struct):
    """Pictures of one size: uint8 (N, H, W, 3), as data, flat or nested, or as binary_data_size raw bytes."""

    name: _Name
    shape: Annotated[list[_Size], msgspec.Meta(min_length=4, max_length=4)]
    datatype: _Name
    data: msgspec.Raw = msgspec.field(default_factory=_null)
    parameters: _Parameters = msgspec.field(default_factory=_null)


class RequestedOutput(msgspec.Struct):
    """A requested output; the parameter binary_data asks for raw bytes."""

    name: _Name
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """A request for inference; the parameter binary_data_output asks for raw bytes of every output."""

    inputs: Annotated[list[InputTensor], msgspec.Meta(min_length=1, max_length=1)]
    id: _Name | None = None
    outputs: _Requested = msgspec.field(default_factory=_null)
    parameters: _Parameters = msgspec.field(default_factory=_null)


@dataclass(frozen=True)
class Inference:
    """A request that was read."""

    id: str | None
    pictures: list[np.ndarray]  # uint8 (H, W, 3)
    binary_outputs: Mapping[str, bool]  # the requested outputs, in order: whether as raw bytes


def read_inference(text: bytes | memoryview, raw: memoryview | None, outputs: tuple[str, ...]) -> Inference:
    """Read a request.

    Parameters
    ----------
    text
        The JSON message.
    raw
        The raw bytes of the tensor; None where the request has none.
    outputs
        The names of the outputs that there are.

    Raises
    ------
    Problem
        ``tensor``, ``upload_too_large``, ``too_many_pictures``, ``picture_too_large``, ``busy`` or ``deadline``.
    """
    message = _decoded(text, InferRequest, "body")
    tensor = message.inputs[0]
    parameters = _decoded_short(message.parameters, dict[str, Any] | None, "parameters") or {}
    binary_outputs = _requested(message.outputs, _flag(parameters, "binary_data_output"), outputs)
    of_tensor = _decoded_short(tensor.parameters, dict[str, Any] | None, "parameters") or {}
    _check_tensor(tensor)
    if "binary_data_size" in of_tensor:
        pictures = _from_bytes(tensor, raw, of_tensor["binary_data_size"])
    else:
        pictures = _from_json(tensor, raw)
    return Inference(message.id, list(pictures), binary_outputs)


def sent_parts(body: memoryview, text_length: str | None) -> tuple[memoryview, memoryview | None]:
    """Return the JSON of a body, and the raw bytes after it; None where the request declares none.

    ``text_length`` is the header that says how many bytes are JSON; None: all. Problem ``tensor`` where it is none, and
    ``upload_too_large``.
    """
    if text_length is None:
        return body, None
    if not (text_length.isascii() and text_length.isdigit() and len(text_length) < 20):
        raise Problem("tensor", f"{TENSOR_HEADER} is '{text_length[:20]}'; expected a number of bytes.")
    length = int(text_length)
    if not 0 < length <= len(body):
        raise Problem("tensor", f"{TENSOR_HEADER} is {length}; expected 1 to {len(body)}, the bytes of the body.")
    if length > state().settings.max_upload_bytes:  # the limit of raw bytes is no limit for JSON
        raise too_large(state().settings.max_upload_bytes)
    return body[:length], body[length:]


def _requested(text: msgspec.Raw, binary: bool, known: tuple[str, ...]) -> dict[str, bool]:
    """Return the requested outputs, and whether as raw bytes: all of them where the request names none."""
    requested = _decoded_short(text, list[RequestedOutput] | None, "outputs") or ()
    names = [output.name for output in requested]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise Problem("tensor", f"There is no output {unknown[0][:40]}; choose from {', '.join(known)}.")
    if len(set(names)) < len(names):
        raise Problem("tensor", "An output is requested more than once; request each once.")
    if not names:
        return dict.fromkeys(known, binary)
    return {output.name: _flag(output.parameters or {}, "binary_data", binary) for output in requested}


def _flag(parameters: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise Problem("tensor", f"The parameter {name} is neither true nor false; send one of them.")
    return value


def _decoded_short(text: msgspec.Raw, kind: Any, what: str) -> Any:
    if len(bytes(text)) > _MAX_TEXT:
        raise Problem("tensor", f"The {what} take {len(bytes(text)):,} bytes; at most {_MAX_TEXT:,} are allowed.")
    return _decoded(bytes(text), kind, what)


def _decoded(text: bytes | memoryview, kind: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise Problem("tensor", f"The {what} of the inference request cannot be read: {error}.") from error


def _check_tensor(tensor: InputTensor) -> None:
    if tensor.name != INPUT or tensor.datatype != "UINT8" or tensor.shape[3] != 3:
        raise Problem(
            "tensor",
            f"The input is {tensor.name[:40]}, {tensor.datatype[:10]} {tensor.shape}; "
            f"expected {INPUT}, UINT8 [pictures, height, width, 3].",
        )
    count, height, width, _ = tensor.shape
    check_count(count)
    allowed = state().settings.max_pixels
    if height * width > allowed:
        raise Problem(
            "picture_too_large",
            f"A picture has {width}x{height} pixels; at most {allowed:,} are allowed; shrink it.",
        )


def _from_bytes(tensor: InputTensor, raw: memoryview | None, size: Any) -> np.ndarray:
    """Return the raw bytes of a tensor as an array, which is no copy."""
    needed = math.prod(tensor.shape)
    if raw is None:
        raise Problem("tensor", f"The input has a binary_data_size without the header {TENSOR_HEADER}; send both.")
    if tensor.data != _null():
        raise Problem("tensor", "The input has data and a binary_data_size; send one of them.")
    if type(size) is not int or size != needed:
        raise Problem(
            "tensor",
            f"The binary_data_size is {str(size)[:20]}; the shape {tensor.shape} needs {needed}; correct one of them.",
        )
    if len(raw) != needed:
        raise Problem("tensor", f"The tensor has {len(raw)} bytes; its shape needs {needed}; send as many.")
    return np.frombuffer(raw, np.uint8).reshape(tensor.shape)


def _from_json(tensor: InputTensor, raw: memoryview | None) -> np.ndarray:
    if raw:
        raise Problem("tensor", f"{len(raw)} bytes follow the JSON; no input has a binary_data_size; send it.")
    data = bytes(tensor.data)
    if data == b"null":
        raise Problem(
            "tensor", f"The input has no data; send data, or binary_data_size and the header {TENSOR_HEADER}."
        )
    values = math.prod(tensor.shape)
    if len(data) < 2 * values:  # a digit and a comma each, at least; and not the memory for them
        raise _wrong_data(values)
    deadline = time.monotonic() + state().settings.deadline_seconds
    with state().decoding.turn(DecodingCost(_VALUE_BYTES * values, values), client_address(), deadline):
        return _values(data, tuple(tensor.shape))


def _wrong_data(values: int) -> Problem:
    return Problem("tensor", f"The data are not {values} integers from 0 to 255, flat or nested.")


def _values(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Return the data as uint8 of a shape.

    The brackets and commas are counted before decoding: a list of lists or strings would take far more memory than its
    text.
    """
    refusal = _wrong_data(math.prod(shape))
    opened = data.count(b"[")
    nested = opened == 1 + sum(math.prod(shape[: depth + 1]) for depth in range(3))
    if (opened != 1 and not nested) or data.count(b",") != math.prod(shape) - 1:
        raise refusal
    try:
        numbers = msgspec.json.decode(data, type=_Nested if nested else _Flat)
        values = np.array(numbers, dtype=np.uint8)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise refusal from error
    if values.shape not in ((math.prod(shape),), shape):
        raise refusal
    return values.reshape(shape)
