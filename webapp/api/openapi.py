"""The OpenAPI 3.1 document, made from the routes and their types, and a page that shows it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from inspect import getdoc
from typing import Any

import msgspec
from flask import Blueprint, Flask, Response, current_app, jsonify, render_template, request
from werkzeug.routing import Rule

from webapp.api import inference_request, inference_response, model_statistics, open_inference, v1
from webapp.problems import STATUS
from webapp.requests.bodies import TENSOR_HEADER

documentation = Blueprint("documentation", __name__)

_SCHEMAS = "#/components/schemas/{name}"
_BINARY = {"type": "string", "contentMediaType": "application/octet-stream"}
_FORM = {
    "type": "object",
    "properties": {"file": {"type": "array", "items": _BINARY, "minItems": 1}},
    "required": ["file"],
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
    "description": "Whether to include the probabilities of all classes: final, main model, submodels.",
    "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
}
_TENSOR_LENGTH = {
    "name": TENSOR_HEADER,
    "in": "header",
    "description": "Bytes of JSON before the raw bytes of a tensor. Without it, the whole body is JSON.",
    "schema": {"type": "integer", "minimum": 1},
}
_ANY = ("host", "key", "rate", "internal")
_WORK = (*_ANY, "cross_site", "no_model", "slow_upload", "upload_too_large", "picture_too_large", "too_many_pictures")
_PICTURES = (*_WORK, "malformed", "no_picture", "format", "media_type", "damaged", "busy", "loading", "deadline")


@dataclass(frozen=True)
class _Operation:
    """What the route itself does not declare: types, parameters, and possible problems."""

    answer: type[msgspec.Struct]
    problems: Sequence[str]
    body: Mapping[str, Any] = field(default_factory=dict)  # media type to schema
    parameters: Sequence[Mapping[str, Any]] = ()
    also: Sequence[int] = ()  # other statuses with the same type
    is_list: bool = False  # of the answer's type
    raw_answer: bool = False  # whether the answer may have raw bytes after its JSON


_ASKED = (inference_request.InferRequest, inference_request.RequestedOutput, open_inference.IndexRequest)
_OPERATIONS = {
    "api.classify": _Operation(
        v1.Classified,
        _PICTURES,
        {"multipart/form-data": _FORM, "application/octet-stream": _BINARY, "image/*": _BINARY},
        (_MODEL, _SCORES),
    ),
    "api.models": _Operation(v1.Models, _ANY),
    "infer.server": _Operation(open_inference.ServerMetadata, _ANY),
    "infer.live": _Operation(open_inference.Live, _ANY),
    "infer.ready": _Operation(open_inference.Ready, _ANY, also=(503,)),
    "infer.model": _Operation(open_inference.ModelMetadata, (*_ANY, "no_model", "loading")),
    "infer.model_ready": _Operation(open_inference.Ready, (*_ANY, "no_model", "loading")),
    "infer.statistics": _Operation(model_statistics.Statistics, (*_ANY, "no_model")),
    "infer.all_statistics": _Operation(model_statistics.Statistics, _ANY),
    "infer.index": _Operation(
        open_inference.IndexEntry,
        (*_ANY, "cross_site", "slow_upload", "upload_too_large", "malformed", "media_type", "busy"),
        {"application/json": {"$ref": _SCHEMAS.format(name="IndexRequest")}},
        is_list=True,
    ),
    "infer.run": _Operation(
        inference_response.InferResponse,
        (*_WORK, "malformed", "media_type", "tensor", "damaged", "busy", "loading", "deadline"),
        {
            "application/json": {"$ref": _SCHEMAS.format(name="InferRequest")},
            "application/octet-stream": _BINARY,
        },
        (_TENSOR_LENGTH,),
        raw_answer=True,
    ),
}


@documentation.get("/api/v1/openapi.json")
def openapi() -> Response:
    """Return the OpenAPI 3.1 document of this API."""
    return jsonify(describe(current_app, request.root_path))


@documentation.get("/api/docs")
def shown() -> str:
    """Show the document as a page."""
    return render_template("api.html", document=describe(current_app, request.root_path))


def describe(app: Flask, prefix: str = "") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the API routes of an application that is published under a prefix."""
    types = [operation.answer for operation in _OPERATIONS.values()]
    _, schemas = msgspec.json.schema_components([*types, *_ASKED, v1.ProblemDetails], ref_template=_SCHEMAS)
    paths: dict[str, dict[str, Any]] = {}
    for rule in app.url_map.iter_rules():
        if rule.endpoint in _OPERATIONS:
            method = "post" if "POST" in (rule.methods or ()) else "get"
            path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
            paths.setdefault(path, {})[method] = _operation(app, rule, _OPERATIONS[rule.endpoint])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "canonistia",
            "version": version("canonistia"),
            "description": "Finds the two most likely classes of pictures, with calibrated probabilities.",
        },
        "servers": [{"url": prefix or "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(app: Flask, rule: Rule, operation: _Operation) -> dict[str, Any]:
    summary, _, description = str(getdoc(app.view_functions[rule.endpoint])).partition("\n\n")
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in sorted(rule.arguments)
    ]
    described: dict[str, Any] = {
        "operationId": rule.endpoint.replace(".", "_") + ("_version" if "version" in rule.arguments else ""),
        "summary": summary,
        "description": description.replace("\n", " "),
        "parameters": [*in_path, *operation.parameters],
        "responses": _responses(operation),
    }
    if operation.body:
        content = {media_type: {"schema": schema} for media_type, schema in operation.body.items()}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _responses(operation: _Operation) -> dict[str, Any]:
    one = {"$ref": _SCHEMAS.format(name=operation.answer.__name__)}
    answer = {"application/json": {"schema": {"type": "array", "items": one} if operation.is_list else one}}
    if operation.raw_answer:
        answer["application/octet-stream"] = {"schema": _BINARY}
    details = {"application/problem+json": {"schema": {"$ref": _SCHEMAS.format(name="ProblemDetails")}}}
    responses: dict[str, Any] = {}
    for kind in sorted(set(operation.problems), key=lambda kind: (STATUS[kind], kind)):
        found = responses.setdefault(str(STATUS[kind]), {"description": "", "content": dict(details)})
        found["description"] = ", ".join(filter(None, [found["description"], kind.replace("_", " ")]))
    for status in (200, *operation.also):
        found = responses.setdefault(str(status), {"description": "success", "content": {}})
        found["content"].update(answer)
    return dict(sorted(responses.items()))
