"""The Open Inference Protocol, version 2 (KServe): pictures as tensors, for programs."""

import math
from typing import Annotated, Any

import msgspec
import numpy as np
from flask import Blueprint, Response, request

from webapp.answers import Refused
from webapp.api import json_response
from webapp.problems import Problem
from webapp.service import Served
from webapp.state import state
from webapp.uploads import classify_sources

infer = Blueprint("infer", __name__, url_prefix="/v2")

INPUT = "pixels"
# What can be asked for, with the protocol's type and the shape after the number of pictures.
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
    """A tensor that goes in or comes out; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """A model; its version is the sha256 of its manifest."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, list[str]]


class Ready(msgspec.Struct):
    """Whether something answers."""

    ready: bool


class Live(msgspec.Struct):
    """Whether the server runs."""

    live: bool


class InputTensor(msgspec.Struct):
    """Pictures of one size: uint8 (N, H, W, 3), flat or nested."""

    name: str
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=1)]], msgspec.Meta(min_length=4, max_length=4)]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class RequestedOutput(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """A request for inference."""

    inputs: Annotated[list[InputTensor], msgspec.Meta(min_length=1, max_length=1)]
    id: str | None = None
    outputs: list[RequestedOutput] | None = None
    parameters: dict[str, Any] | None = None


class OutputTensor(msgspec.Struct):
    """An answer for all pictures, flat in row-major order."""

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
    """Say that the server runs."""
    return json_response(Live(True))


@infer.get("/health/ready")
def ready() -> Response:
    """Say whether the default model answers."""
    service = state().service
    loaded = service.is_loaded(service.default)
    return json_response(Ready(loaded), 200 if loaded else 503)


@infer.get("/models/<name>")
def model(name: str) -> Response:
    """Describe a model and its tensors."""
    with state().service.use(name) as served:
        classes = served.engine.classes
        outputs = [TensorMetadata(name, kind, _shape(-1, last, classes)) for name, (kind, last) in OUTPUTS.items()]
        return json_response(
            ModelMetadata(
                served.name,
                [served.sha256],
                "onnxruntime_cascade",
                [TensorMetadata(INPUT, "UINT8", [-1, -1, -1, 3])],
                outputs,
                {"classes": list(classes)},
            )
        )


@infer.get("/models/<name>/ready")
def model_ready(name: str) -> Response:
    """Say whether a model answers."""
    with state().service.use(name):
        return json_response(Ready(True))


@infer.post("/models/<name>/infer")
def run(name: str) -> Response:
    """Run the cascade over a tensor of decoded pictures, uint8 (N, H, W, 3), of any one size."""
    with state().service.use(name) as served:
        try:
            asked = msgspec.json.decode(request.get_data(), type=InferRequest)
        except msgspec.DecodeError as error:
            raise Problem("tensor", f"The body is no inference request: {error}.") from error
        pictures = _pictures(asked.inputs[0])
        names = [output.name for output in asked.outputs] if asked.outputs else list(OUTPUTS)
        unknown = sorted(set(names) - set(OUTPUTS))
        if unknown:
            raise Problem("tensor", f"There is no output {unknown[0][:40]}; there are {', '.join(OUTPUTS)}.")
        outputs = _outputs(served, pictures)
        return json_response(InferResponse(served.name, served.sha256, [outputs[output] for output in names], asked.id))


def _pictures(tensor: InputTensor) -> list[np.ndarray]:
    if tensor.name != INPUT or tensor.datatype != "UINT8" or tensor.shape[3] != 3:
        raise Problem(
            "tensor",
            f"The input is {tensor.name[:40]}, {tensor.datatype[:10]} {tensor.shape}; "
            f"expected {INPUT}, UINT8 [pictures, height, width, 3].",
        )
    settings = state().settings
    count, height, width, _ = tensor.shape
    if count > settings.max_pictures:
        raise Problem("too_many_pictures", f"{count} pictures were sent; at most {settings.max_pictures} go at once.")
    if height * width > settings.max_pixels:
        raise Problem("picture_too_large", f"A picture has {width}x{height} pixels; at most {settings.max_pixels:,}.")
    try:
        values = np.array(tensor.data)
    except ValueError as error:
        raise Problem("tensor", "The data are nested unevenly; send them flat or as the shape says.") from error
    fits = values.size == math.prod(tensor.shape) and values.shape in ((values.size,), tuple(tensor.shape))
    if not fits or values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise Problem("tensor", f"The data are not {math.prod(tensor.shape)} whole numbers from 0 to 255.")
    return list(values.astype(np.uint8).reshape(tensor.shape))


def _outputs(served: Served, pictures: list[np.ndarray]) -> dict[str, OutputTensor]:
    answers = classify_sources(served, [(str(number), picture) for number, picture in enumerate(pictures)])
    for answer in answers:
        if isinstance(answer, Refused):
            raise answer.problem
    given = [answer for answer in answers if not isinstance(answer, Refused)]
    predictions = [answer.prediction for answer in given]
    data: dict[str, list[Any]] = {
        "probabilities": [float(score) for answer in given for score in answer.scores],
        "labels": [label for answer in predictions for label in (answer.label_1, answer.label_2)],
        "routed": [answer.stage == "submodels" for answer in predictions],
        "unsure": [answer.unsure for answer in predictions],
    }
    return {
        name: OutputTensor(name, kind, _shape(len(pictures), last, served.engine.classes), data[name])
        for name, (kind, last) in OUTPUTS.items()
    }


def _shape(pictures: int, last: int | str | None, classes: tuple[str, ...]) -> list[int]:
    if last is None:
        return [pictures]
    return [pictures, len(classes) if isinstance(last, str) else last]
