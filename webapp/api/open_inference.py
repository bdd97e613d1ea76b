"""The Open Inference Protocol, version 2 (KServe), with the binary tensors, index and statistics of Triton."""

from typing import Any

import msgspec
from flask import Blueprint, Response, request

from cascade.bundle.reading import Bundle
from webapp.api.inference_request import INPUT, Inference, read_inference, sent_parts
from webapp.api.inference_response import OUTPUTS, Answered, respond
from webapp.api.model_statistics import Statistics, statistics_of
from webapp.api.v1 import json_response
from webapp.problems import Problem
from webapp.requests.answers import Answer, Refused
from webapp.requests.bodies import TENSOR_HEADER, whole_body
from webapp.requests.state import state
from webapp.requests.uploads import classify_sources
from webapp.serving.service import Served

infer = Blueprint("infer", __name__, url_prefix="/v2")

_EXTENSIONS = ["binary_tensor_data", "statistics"]
_MODEL = "/models/<name>"
_VERSION = "/models/<name>/versions/<version>"


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


class IndexRequest(msgspec.Struct):
    """Which models an index lists: all of them, or those that are ready."""

    ready: bool = False


class IndexEntry(msgspec.Struct):
    """A model of the index; its state is READY or UNAVAILABLE, for a reason."""

    name: str
    version: str
    state: str
    reason: str


@infer.get("")
def server() -> Response:
    """Describe the server."""
    return json_response(server_metadata())


@infer.get("/health/live")
def live() -> Response:
    """Say that the server is running."""
    return json_response(Live(True))


@infer.get("/health/ready")
def ready() -> Response:
    """Say whether the default model is ready."""
    ready = is_server_ready()
    return json_response(Ready(ready), 200 if ready else 503)


@infer.get(_MODEL)
@infer.get(_VERSION)
def model(name: str, version: str | None = None) -> Response:
    """Describe a model and its tensors."""
    return json_response(model_metadata(name, version))


@infer.get(f"{_MODEL}/ready")
@infer.get(f"{_VERSION}/ready")
def model_ready(name: str, version: str | None = None) -> Response:
    """Say whether a model is ready; an unloaded model is ready, and is loaded by the next request."""
    ready = is_model_ready(name, version)
    return json_response(Ready(ready), 200 if ready else 503)


@infer.get(f"{_MODEL}/stats")
@infer.get(f"{_VERSION}/stats")
def statistics(name: str, version: str | None = None) -> Response:
    """Return what a model answered since it was loaded, and how long each step took."""
    return json_response(model_statistics(name, version))


@infer.get("/models/stats")
def all_statistics() -> Response:
    """Return the statistics of all models."""
    return json_response(model_statistics())


@infer.post("/repository/index")
def index() -> Response:
    """List the models that are served, with their state."""
    return json_response(model_index(ready_only=_asked_index().ready))


@infer.post(f"{_MODEL}/infer")
@infer.post(f"{_VERSION}/infer")
def run(name: str, version: str | None = None) -> Response:
    """Run the cascade on a tensor of decoded pictures, uint8 (N, H, W, 3), all of the same size.

    The tensor is in the JSON, or its bytes follow the JSON; then the header Inference-Header-Content-Length says how
    long the JSON is. Unknown parameters are ignored.
    """
    check_model(name, version)
    inference = read_inference(*sent_parts(whole_body(), request.headers.get(TENSOR_HEADER)), tuple(OUTPUTS))
    with state().service.use(name) as served:
        return respond(inference_of(served, version, inference))


def server_metadata() -> ServerMetadata:
    """Return the description of the server."""
    from importlib.metadata import version

    return ServerMetadata("canonistia", version("canonistia"), _EXTENSIONS)


def is_server_ready() -> bool:
    """Return whether the default model is loaded."""
    service = state().service
    return service.is_loaded(service.default)


def is_model_ready(name: str, version: str | None = None) -> bool:
    """Return whether a model answers, at once or after loading; Problem ``no_model`` if there is none."""
    check_model(name, version)
    return state().service.is_ready(name)


def model_metadata(name: str, version: str | None = None) -> ModelMetadata:
    """Return the description of a model and its tensors; Problem ``no_model`` if there is none."""
    bundle = check_model(name, version)
    classes = bundle.manifest.classes
    return ModelMetadata(
        name,
        [bundle.sha256],
        "onnxruntime_cascade",
        [TensorMetadata(INPUT, "UINT8", [-1, -1, -1, 3])],
        [TensorMetadata(key, output.datatype, output.shape(-1, len(classes))) for key, output in OUTPUTS.items()],
        {"classes": list(classes)},
    )


def model_statistics(name: str | None = None, version: str | None = None) -> Statistics:
    """Return the statistics of a model, or of all; Problem ``no_model`` if there is none of that name."""
    service = state().service
    bundles = [service.bundle(one) for one in service.names] if name is None else [check_model(name, version)]
    return Statistics([statistics_of(bundle, service.totals(bundle.manifest.name)) for bundle in bundles])


def model_index(ready_only: bool) -> list[IndexEntry]:
    """Return the models that are served, or those of them that are ready."""
    service = state().service
    entries = []
    for name in service.names:
        if service.is_ready(name):
            entries.append(IndexEntry(name, service.bundle(name).sha256, "READY", ""))
        elif not ready_only:
            entries.append(IndexEntry(name, service.bundle(name).sha256, "UNAVAILABLE", "its folder holds no bundle"))
    return entries


def inference_of(served: Served, version: str | None, inference: Inference) -> Answered:
    """Return the answers to an inference request.

    Raises
    ------
    Problem
        ``no_model`` where the model was replaced since :func:`check_model`, and those of
        :func:`webapp.requests.uploads.classify_sources`.
    ClientLeftError
        The client hung up.
    """
    _check_version(served.name, served.sha256, version)
    answers = classify_sources(served, [(str(number), one) for number, one in enumerate(inference.pictures)])
    for answer in answers:
        if isinstance(answer, Refused):
            raise answer.problem
    return Answered(served, inference, [answer for answer in answers if isinstance(answer, Answer)])


def check_model(name: str, version: str | None) -> Bundle:
    """Return a bundle by its name, and its version if one is given; Problem ``no_model`` if there is none."""
    bundle = state().service.bundle(name)
    _check_version(name, bundle.sha256, version)
    return bundle


def _check_version(name: str, found: str, expected: str | None) -> None:
    if expected not in (None, found):
        raise Problem("no_model", f"There is no version {expected[:70]} of {name}; its version is {found}.")


def _asked_index() -> IndexRequest:
    body: Any = whole_body()
    try:
        return msgspec.json.decode(body, type=IndexRequest) if len(body) else IndexRequest()
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Problem("malformed", f"The body of the index request cannot be read: {error}.") from error
