"""The OpenAPI 3.1 document, made from the routes and their types, and a page that shows it."""

import re
from importlib.metadata import version
from inspect import getdoc
from typing import Any

import msgspec
from flask import Blueprint, Flask, Response, current_app, jsonify, render_template, request
from werkzeug.routing import Rule

from webapp.api.operations import ASKED, BINARY, OPERATIONS, SCHEMAS, TAGS, Operation
from webapp.api.v1 import ProblemDetails
from webapp.problems import STATUS
from webapp.requests.security import OPEN, UNDER_ANY_NAME
from webapp.requests.state import KEY, State
from webapp.settings import Settings

documentation = Blueprint("documentation", __name__)


@documentation.get("/api/v1/openapi.json")
def openapi() -> Response:
    """Return the OpenAPI 3.1 document of this API."""
    return jsonify(describe(current_app, request.root_path))


@documentation.get("/api/docs")
def shown() -> str:
    """Show the document as a page."""
    example = msgspec.json.format(msgspec.json.encode(OPERATIONS["api.classify"].answered)).decode()
    return render_template("api.html", document=describe(current_app, request.root_path), example=example)


def describe(app: Flask, prefix: str = "") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the API routes of an application that is published under a prefix.

    A refusal is described where the settings of the service let it occur.
    """
    found: State = app.extensions[KEY]
    types = [operation.answer for operation in OPERATIONS.values()]
    _, schemas = msgspec.json.schema_components([*types, *ASKED, ProblemDetails], ref_template=SCHEMAS)
    paths: dict[str, dict[str, Any]] = {}
    for rule in app.url_map.iter_rules():
        if rule.endpoint in OPERATIONS:
            method = "post" if "POST" in (rule.methods or ()) else "get"
            path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
            paths.setdefault(path, {})[method] = _operation(app, rule, method, found.settings)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "canonistia",
            "version": version("canonistia"),
            "description": "Finds the two most likely classes of pictures, with calibrated probabilities.",
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": prefix or "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if found.settings.keyring else [{}, {"key": []}],
    }


def _operation(app: Flask, rule: Rule, method: str, settings: Settings) -> dict[str, Any]:
    operation = OPERATIONS[rule.endpoint]
    summary, _, description = str(getdoc(app.view_functions[rule.endpoint])).partition("\n\n")
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in sorted(rule.arguments)
    ]
    problems = [kind for kind in operation.problems if _occurs(kind, rule.endpoint, method, settings)]
    described: dict[str, Any] = {
        "operationId": rule.endpoint.replace(".", "_") + ("_version" if "version" in rule.arguments else ""),
        "tags": [operation.tag],
        "summary": summary,
        "description": description.replace("\n", " ") or summary,
        "parameters": [*in_path, *operation.parameters],
        "responses": _responses(operation, problems),
    }
    if rule.endpoint in OPEN:
        described["security"] = [{}]
    if operation.body:
        content = {media_type: {"schema": schema} for media_type, schema in operation.body.items()}
        if operation.asked is not None:
            content["application/json"]["example"] = msgspec.to_builtins(operation.asked)
        described["requestBody"] = {"required": True, "content": content}
    return described


def _occurs(kind: str, endpoint: str, method: str, settings: Settings) -> bool:
    """Return whether the settings of a service let a kind of problem occur at an endpoint."""
    if kind == "host":
        return bool(settings.trusted_hosts) and endpoint not in UNDER_ANY_NAME
    if kind == "key":
        return bool(settings.keyring) and endpoint not in OPEN
    if kind == "rate":  # of requests, and of wrong keys; a key may bring a rate of its own
        return (method == "post" and bool(settings.rate or settings.keyring)) or (
            bool(settings.rate and settings.keyring) and endpoint not in OPEN
        )
    return True


def _responses(operation: Operation, problems: list[str]) -> dict[str, Any]:
    one = {"$ref": SCHEMAS.format(name=operation.answer.__name__)}
    shown: dict[str, Any] = {"schema": {"type": "array", "items": one} if operation.is_list else one}
    if operation.answered is not None:
        shown["example"] = msgspec.to_builtins(operation.answered)
    answer = {"application/json": shown}
    if operation.raw_answer:
        answer["application/octet-stream"] = {"schema": BINARY}
    details = {"application/problem+json": {"schema": {"$ref": SCHEMAS.format(name=ProblemDetails.__name__)}}}
    responses: dict[str, Any] = {}
    for kind in sorted(set(problems), key=lambda kind: (STATUS[kind], kind)):
        found = responses.setdefault(str(STATUS[kind]), {"description": "", "content": dict(details)})
        found["description"] = ", ".join(filter(None, [found["description"], kind.replace("_", " ")]))
    for status in (200, *operation.also):
        found = responses.setdefault(str(status), {"description": "success", "content": {}})
        found["content"].update(answer)
    return dict(sorted(responses.items()))
