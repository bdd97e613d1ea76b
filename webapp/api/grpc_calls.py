"""The calls of the Open Inference Protocol over gRPC, as routes of the application.

So a call passes the same checks as an HTTP request, and is answered by the same functions. The server for gRPC
(:mod:`webapp.grpc_server`) hands it over before its message has arrived.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from flask import Blueprint, Response

from webapp.api import open_inference
from webapp.api.grpc_messages import made, parsed
from webapp.api.inference_request import read_inference
from webapp.api.inference_response import OUTPUTS, raw_bytes
from webapp.problems import Problem
from webapp.requests.bodies import received_message
from webapp.requests.state import state

PATH = "/v2/grpc"
_JSON_VALUE = 4  # bytes of a value in JSON, about: contents of single values hold as much as a JSON of --max-upload

calls = Blueprint("grpc", __name__, url_prefix=PATH)


@dataclass(frozen=True)
class Call:
    """A call: its HTTP method, POST where the rate counts it, and the function from its message to its reply."""

    method: str
    reply: Callable[[Any], Any]


def _server_live(_: Any) -> Any:
    return made("ServerLiveResponse", {"live": True})


def _server_ready(_: Any) -> Any:
    return made("ServerReadyResponse", {"ready": open_inference.is_server_ready()})


def _server_metadata(_: Any) -> Any:
    return made("ServerMetadataResponse", msgspec.to_builtins(open_inference.server_metadata()))


def _model_ready(asked: Any) -> Any:
    """Return whether a model is ready; one that is not there is not, as for Triton."""
    try:
        ready = open_inference.is_model_ready(asked.name, asked.version or None)
    except Problem as problem:
        if problem.kind != "no_model":
            raise
        ready = False
    return made("ModelReadyResponse", {"ready": ready})


def _model_metadata(asked: Any) -> Any:
    found = open_inference.model_metadata(asked.name, asked.version or None)
    return made("ModelMetadataResponse", msgspec.to_builtins(found))


def _model_statistics(asked: Any) -> Any:
    found = open_inference.model_statistics(asked.name or None, asked.version or None)
    return made("ModelStatisticsResponse", msgspec.to_builtins(found))


def _repository_index(asked: Any) -> Any:
    models = open_inference.model_index(ready_only=asked.ready)
    return made("RepositoryIndexResponse", {"models": msgspec.to_builtins(models)})


def _model_infer(asked: Any) -> Any:
    version = asked.model_version or None
    open_inference.check_model(asked.model_name, version)
    inference = read_inference(*_parts(asked), tuple(OUTPUTS))
    with state().service.use(asked.model_name) as served:
        answered = open_inference.inference_of(served, version, inference)
    message = answered.message()
    reply = made("ModelInferResponse", msgspec.to_builtins(message))
    reply.raw_output_contents.extend(raw_bytes(answered.values(tensor.name)) for tensor in message.outputs)
    return reply


CALLS: Mapping[str, Call] = {
    "ServerLive": Call("GET", _server_live),
    "ServerReady": Call("GET", _server_ready),
    "ServerMetadata": Call("GET", _server_metadata),
    "ModelReady": Call("GET", _model_ready),
    "ModelMetadata": Call("GET", _model_metadata),
    "ModelStatistics": Call("GET", _model_statistics),
    "RepositoryIndex": Call("POST", _repository_index),
    "ModelInfer": Call("POST", _model_infer),
}


def _view(name: str) -> Callable[[], Response]:
    def run() -> Response:
        asked = parsed(f"{name}Request", received_message())
        return Response(CALLS[name].reply(asked).SerializeToString(), content_type="application/grpc+proto")

    return run


for _name, _call in CALLS.items():
    calls.add_url_rule(f"/{_name}", _name, _view(_name), methods=[_call.method])


def _parts(asked: Any) -> tuple[bytes, memoryview | None]:
    """Return a request as its JSON and the raw bytes of its tensor, as it comes over HTTP."""
    raw = _raw(asked)
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": math.prod(tensor.shape[:4])},
        }
        for tensor in asked.inputs[:2]  # a second one is refused
    ]
    outputs = [{"name": output.name} for output in asked.outputs[: len(OUTPUTS) + 1]]
    message = {"inputs": inputs, "id": asked.id or None, "outputs": outputs}
    return msgspec.json.encode(message), memoryview(raw)


def _raw(asked: Any) -> bytes:
    """Return the bytes of the tensor, sent as such or as single values."""
    contents = [tensor.contents for tensor in asked.inputs[:2] if tensor.contents]
    sent = [*asked.raw_input_contents[:2], *contents]
    if len(sent) != 1:
        raise Problem(
            "tensor",
            f"The input has {'several contents' if sent else 'no contents'}; expected them once; send "
            "raw_input_contents, or contents with uint_contents.",
        )
    return _from_values(contents[0]) if contents else bytes(sent[0])


def _from_values(contents: bytes) -> bytes:
    allowed = state().settings.max_upload_bytes // _JSON_VALUE
    if len(contents) > allowed:
        raise Problem(
            "upload_too_large",
            f"The contents take {len(contents):,} bytes; at most {allowed:,} are allowed; send raw_input_contents.",
        )
    values = parsed("InferTensorContents", contents).uint_contents
    numbers = np.fromiter(values, np.uint32, len(values))
    if not len(numbers) or numbers.max() > np.iinfo(np.uint8).max:
        raise Problem("tensor", "The contents are no uint_contents from 0 to 255; send such, or raw_input_contents.")
    return numbers.astype(np.uint8).tobytes()
