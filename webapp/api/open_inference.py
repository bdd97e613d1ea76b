"""The Open Inference Protocol, version 2 (KServe): pictures are sent as tensors."""

import math
import time
from typing import Annotated, Any

import msgspec
import numpy as np
from flask import Blueprint, Response, request

from cascade.images.decoding import DecodingCost
from webapp.api.v1 import json_response
from webapp.problems import Problem
from webapp.requests.answers import Refused
from webapp.requests.connection import client_address
from webapp.requests.state import state
from webapp.requests.uploads import check_count, classify_sources
from webapp.serving.service import Served

infer = Blueprint("infer", __name__, url_prefix="/v2")

INPUT = "pixels"
_VALUE_BYTES = 24  # that a value takes while its text is read: a list's place, the array, and the text
_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Flat = list[_Byte]
_Nested = list[list[list[list[_Byte]]]]
# The outputs, each with its type in the protocol and its shape after the number of pictures.
OUTPUTS: dict[str, tuple[str, int | str | None]] = {
    "probabilities": ("FP64", "K"),
    "labels": ("BYTES", 2),
    "routed": ("BOOL", None),
    "unsure": ("BOOL", None),
}


class ServerMetadata(msgspec.Struct):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct):
    """An input or output tensor; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """A model; its version is the SHA-256 of its manifest."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, list[str]]


class Ready(msgspec.Struct):
    """Whether the server or a model is ready."""

    ready: bool


class Live(msgspec.Struct):
    """Whether the server is running."""

    live: bool


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
    """Pictures of one size: uint8 (N, H, W, 3), flat or nested."""

    name: _Name
    shape: tuple[_Size, _Size, _Size, _Size]
    datatype: _Name
    data: msgspec.Raw
    parameters: _Parameters = msgspec.field(default_factory=_null)


class RequestedOutput(msgspec.Struct):
    """A requested output."""

    name: _Name
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """A request for inference."""

    inputs: tuple[InputTensor]
    id: _Name | None = None
    outputs: _Requested = msgspec.field(default_factory=_null)
    parameters: _Parameters = msgspec.field(default_factory=_null)


class OutputTensor(msgspec.Struct):
    """An output for all pictures, flat in row-major order."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The answers."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


@infer.get("")
def server() -> Response:
    """Describe the server."""
    from importlib.metadata import version

    return json_response(ServerMetadata("canonistia", version("canonistia"), []))


@infer.get("/health/live")
def live() -> Response:
    """Say that the server is running."""
    return json_response(Live(True))


@infer.get("/health/ready")
def ready() -> Response:
    """Say whether the default model is ready."""
    service = state().service
    loaded = service.is_loaded(service.default)
    return json_response(Ready(loaded), 200 if loaded else 503)


@infer.get("/models/<name>")
def model(name: str) -> Response:
    """Describe a model and its tensors."""
    bundle = state().service.bundle(name)
    classes = tuple(bundle.manifest.classes)
    return json_response(
        ModelMetadata(
            name,
            [bundle.sha256],
            "onnxruntime_cascade",
            [TensorMetadata(INPUT, "UINT8", [-1, -1, -1, 3])],
            [TensorMetadata(output, kind, _shape(-1, last, classes)) for output, (kind, last) in OUTPUTS.items()],
            {"classes": list(classes)},
        )
    )


@infer.get("/models/<name>/ready")
def model_ready(name: str) -> Response:
    """Say whether a model is ready; an unloaded model is ready, and is loaded by the next request."""
    ready = state().service.is_ready(name)
    return json_response(Ready(ready), 200 if ready else 503)


@infer.post("/models/<name>/infer")
def run(name: str) -> Response:
    """Run the cascade on a tensor of decoded pictures, uint8 (N, H, W, 3), all of the same size."""
    state().service.bundle(name)
    inference = _decoded(request.get_data(), InferRequest, "body")
    tensor = inference.inputs[0]
    _decoded_short(inference.parameters, dict[str, Any] | None, "parameters")
    _decoded_short(tensor.parameters, dict[str, Any] | None, "parameters")
    names = _requested(inference.outputs)
    pictures = _pictures(tensor)
    with state().service.use(name) as served:
        outputs = _outputs(served, pictures)
        return json_response(
            InferResponse(served.name, served.sha256, [outputs[output] for output in names], inference.id)
        )


def _requested(text: msgspec.Raw) -> list[str]:
    """Return the names of the requested outputs: all of them where the request names none."""
    names = [output.name for output in _decoded_short(text, list[RequestedOutput] | None, "outputs") or ()]
    unknown = sorted(set(names) - set(OUTPUTS))
    if unknown:
        raise Problem("tensor", f"There is no output {unknown[0][:40]}; choose from {', '.join(OUTPUTS)}.")
    if len(set(names)) < len(names):
        raise Problem("tensor", "An output is requested more than once; request each once.")
    return names or list(OUTPUTS)


def _decoded_short(text: msgspec.Raw, kind: Any, what: str) -> Any:
    if len(bytes(text)) > _MAX_TEXT:
        raise Problem("tensor", f"The {what} take {len(bytes(text)):,} bytes; at most {_MAX_TEXT:,} are allowed.")
    return _decoded(bytes(text), kind, what)


def _decoded(text: bytes, kind: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise Problem("tensor", f"The {what} of the inference request cannot be read: {error}.") from error


def _pictures(tensor: InputTensor) -> list[np.ndarray]:
    if tensor.name != INPUT or tensor.datatype != "UINT8" or tensor.shape[3] != 3:
        raise Problem(
            "tensor",
            f"The input is {tensor.name[:40]}, {tensor.datatype[:10]} {list(tensor.shape)}; "
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
    values = math.prod(tensor.shape)
    if len(bytes(tensor.data)) < 2 * values:  # a digit and a comma each, at least; and not the memory for them
        raise _wrong_data(values)
    deadline = time.monotonic() + state().settings.deadline_seconds
    with state().decoding.turn(DecodingCost(_VALUE_BYTES * values, values), client_address(), deadline):
        return list(_values(bytes(tensor.data), tensor.shape))


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


def _outputs(served: Served, pictures: list[np.ndarray]) -> dict[str, OutputTensor]:
    answers = classify_sources(served, [(str(number), picture) for number, picture in enumerate(pictures)])
    for answer in answers:
        if isinstance(answer, Refused):
            raise answer.problem
    answered = [answer for answer in answers if not isinstance(answer, Refused)]
    predictions = [answer.prediction for answer in answered]
    data: dict[str, list[Any]] = {
        "probabilities": [float(score) for answer in answered for score in answer.outcome.scores],
        "labels": [label for prediction in predictions for label in (prediction.label_1, prediction.label_2)],
        "routed": [prediction.stage == "submodels" for prediction in predictions],
        "unsure": [prediction.unsure for prediction in predictions],
    }
    return {
        name: OutputTensor(name, kind, _shape(len(pictures), last, served.engine.classes), data[name])
        for name, (kind, last) in OUTPUTS.items()
    }


def _shape(pictures: int, last: int | str | None, classes: tuple[str, ...]) -> list[int]:
    if last is None:
        return [pictures]
    return [pictures, len(classes) if isinstance(last, str) else last]
