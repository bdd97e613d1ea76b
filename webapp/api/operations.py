"""The operations of the API: what the routes do not declare themselves, for the OpenAPI document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from webapp.api import inference_request, inference_response, model_statistics, open_inference, v1
from webapp.api.parameters import MAX_TOP_K
from webapp.requests.bodies import TENSOR_HEADER

SCHEMAS = "#/components/schemas/{name}"
# "format" is what generators of clients read; OpenAPI 3.1 itself would do without.
BINARY = {"type": "string", "format": "binary"}
PICTURES, INFERENCE = "pictures", "inference"  # the tags
TAGS = {
    PICTURES: "Pictures in, their most likely classes out.",
    INFERENCE: "The Open Inference Protocol, version 2, for the clients of KServe and Triton.",
}

_MODEL = {
    "name": "model",
    "in": "query",
    "description": "Name of a model. Default: the first one served.",
    "schema": {"type": "string"},
}
_SCORES = {
    "name": "scores",
    "in": "query",
    "description": "Whether to include the probabilities of all classes: final, main model, submodels. Default: false.",
    "schema": {"type": "string", "enum": ["true", "false"]},  # no "default": a client would send it in the query
}
_TOP_K = {
    "name": "top_k",
    "in": "query",
    "description": "How many of the most likely classes to list, with their probabilities. Default: no list.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K},
    "example": 5,
}
_PREDICTION_SET = {
    "name": "prediction_set",
    "in": "query",
    "description": "Coverage of a set of classes that holds the true one, such as 0.95. Default: no set.",
    "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "example": 0.95,
}
_PARAMETERS: tuple[dict[str, Any], ...] = (_MODEL, _SCORES, _TOP_K, _PREDICTION_SET)
_FILES = {"type": "array", "items": BINARY, "minItems": 1}
_FORM = {
    "type": "object",
    "properties": {
        "file": {**_FILES, "description": 'The pictures. The field may be named "files" or "image", too.'},
        **{one["name"]: {**one["schema"], "description": one["description"]} for one in _PARAMETERS},
    },
    "required": ["file"],
}
_TENSOR_LENGTH = {
    "name": TENSOR_HEADER,
    "in": "header",
    "description": "Bytes of JSON before the raw bytes of a tensor. Without it, the whole body is JSON.",
    "schema": {"type": "integer", "minimum": 1},
}

ANY = ("host", "key", "rate", "internal")
_WORK = (*ANY, "cross_site", "no_model", "slow_upload", "upload_too_large", "picture_too_large", "too_many_pictures")
_CLASSIFY = (*_WORK, "malformed", "no_picture", "format", "media_type", "damaged", "busy", "loading", "deadline")
_SHA256 = "9f" * 32

_RESULT = v1.Result(
    path="beach.jpg",
    label_1="Coast",
    probability_1=0.93,
    label_2="Open country",
    probability_2=0.05,
    stage="main",
    unsure=False,
    both=False,
    accepted=None,
    error=None,
)
_ENTRY = v1.ModelEntry("scene15", ["Coast", "Open country"], 1275, 0.97, [0.96, 0.98], 0.99, [0.98, 0.995], 0.1)
_TENSOR = {
    "name": inference_request.INPUT,
    "shape": [1, 1, 2, 3],
    "datatype": "UINT8",
    "data": [255, 255, 255, 0, 0, 0],
}
_OUTPUT = inference_response.OutputTensor("labels", "BYTES", [1, 2], ["Coast", "Open country"])


@dataclass(frozen=True)
class Operation:
    """What a route does not declare: types, parameters, an example of each body, and the kinds of problem."""

    answer: type[msgspec.Struct]
    problems: Sequence[str]
    tag: str = INFERENCE
    body: Mapping[str, Any] = field(default_factory=dict)  # media type to schema
    parameters: Sequence[Mapping[str, Any]] = ()
    also: Sequence[int] = ()  # other statuses with the same type
    is_list: bool = False  # of the answer's type
    raw_answer: bool = False  # whether the answer may have raw bytes after its JSON
    asked: Any = None  # an example of a body as JSON
    answered: Any = None  # an example of the answer


ASKED = (inference_request.InferRequest, inference_request.RequestedOutput, open_inference.IndexRequest)
OPERATIONS = {
    "api.classify": Operation(
        v1.Classified,
        _CLASSIFY,
        PICTURES,
        {"multipart/form-data": _FORM, "application/octet-stream": BINARY, "image/*": BINARY},
        _PARAMETERS,
        answered=v1.Classified("scene15", _SHA256, [_RESULT]),
    ),
    "api.models": Operation(v1.Models, ANY, PICTURES, answered=v1.Models([_ENTRY])),
    "infer.server": Operation(open_inference.ServerMetadata, ANY),
    "infer.live": Operation(open_inference.Live, ANY, answered=open_inference.Live(True)),
    "infer.ready": Operation(open_inference.Ready, ANY, also=(503,), answered=open_inference.Ready(True)),
    "infer.model": Operation(open_inference.ModelMetadata, (*ANY, "no_model")),
    "infer.model_ready": Operation(
        open_inference.Ready, (*ANY, "no_model"), also=(503,), answered=open_inference.Ready(True)
    ),
    "infer.statistics": Operation(model_statistics.Statistics, (*ANY, "no_model")),
    "infer.all_statistics": Operation(model_statistics.Statistics, ANY),
    "infer.index": Operation(
        open_inference.IndexEntry,
        (*ANY, "cross_site", "slow_upload", "upload_too_large", "malformed", "media_type", "busy"),
        body={"application/json": {"$ref": SCHEMAS.format(name="IndexRequest")}},
        is_list=True,
        asked=open_inference.IndexRequest(),
        answered=[open_inference.IndexEntry("scene15", _SHA256, "READY", "")],
    ),
    "infer.run": Operation(
        inference_response.InferResponse,
        (*_WORK, "malformed", "media_type", "tensor", "damaged", "busy", "loading", "deadline"),
        body={
            "application/json": {"$ref": SCHEMAS.format(name="InferRequest")},
            "application/octet-stream": BINARY,
        },
        parameters=(_TENSOR_LENGTH,),
        raw_answer=True,
        asked={"inputs": [_TENSOR], "outputs": [{"name": "labels"}]},
        answered=inference_response.InferResponse("scene15", _SHA256, [_OUTPUT]),
    ),
}
