"""The API: classify pictures over HTTP; answers and problems are JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import numpy as np
from flask import Blueprint, Response, request

from cascade.bundle.manifest import Accuracy, Manifest
from cascade.evaluation.conformal import prediction_sets
from cascade.images.decoding import Source
from webapp.api.parameters import Parameters, limit_of, read_parameters
from webapp.problems import STATUS, Problem
from webapp.requests.answers import Answer, Refused, scores_of
from webapp.requests.bodies import whole_body
from webapp.requests.state import state
from webapp.requests.uploads import classify_sources, sent_files
from webapp.serving.service import Served

api = Blueprint("api", __name__, url_prefix="/api/v1")


class Ranked(msgspec.Struct):
    """A class and its probability."""

    label: str
    probability: float


class Result(msgspec.Struct, omit_defaults=True):
    """The answer about one picture: the columns of ``canonistia classify``, and what was requested besides.

    ``top`` are the most likely classes; ``prediction_set`` are those that hold the true one with the requested
    coverage. Both have the most likely class first.
    """

    path: str
    label_1: str | None
    probability_1: float | None
    label_2: str | None
    probability_2: float | None
    stage: str | None
    unsure: bool | None
    both: bool | None
    accepted: bool | None
    error: str | None
    doubt: float | msgspec.UnsetType = msgspec.UNSET
    scores: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    main: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    submodels: dict[str, float | None] | msgspec.UnsetType = msgspec.UNSET
    top: list[Ranked] | msgspec.UnsetType = msgspec.UNSET
    prediction_set: list[str] | msgspec.UnsetType = msgspec.UNSET


class Classified(msgspec.Struct):
    """The answers about all pictures of a request, in its order, and the bundle that gave them."""

    model: str
    sha256: str
    results: list[Result]


_Interval = Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)]  # a tuple's schema stops generators


class ModelEntry(msgspec.Struct):
    """A bundle that is served, with its accuracy measured out of fold."""

    name: str
    classes: list[str]
    pictures: int
    top1: float
    top1_interval: _Interval
    top2: float
    top2_interval: _Interval
    routed: float


class Models(msgspec.Struct):
    """The bundles that are served; the first answers requests that name none."""

    models: list[ModelEntry]


class ProblemDetails(msgspec.Struct):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    error: str  # the same sentence, in the field of the Open Inference Protocol


@api.post("/classify")
def classify() -> Response:
    """Classify one or many pictures.

    Send files in the form field "file" ("files" and "image" mean the same), or one picture as the whole body. A picture
    that cannot be read gives a result with its error. If no picture can be read, the response is the problem of the
    first one. The parameters may be fields of the form, too.
    """
    sources = _sent()
    wanted = read_parameters()
    with state().service.use(wanted.model) as served:
        limit = None if wanted.coverage is None else limit_of(served.manifest, wanted.coverage)
        answers = classify_sources(served, sources)
        refused = [answer for answer in answers if isinstance(answer, Refused)]
        if len(refused) == len(answers):
            raise refused[0].problem
        results = [Result(**asdict(answer.row), **_more(answer, served, wanted, limit)) for answer in answers]
        return json_response(Classified(served.name, served.sha256, results))


@api.get("/models")
def models() -> Response:
    """List the models that are served."""
    return json_response(Models([_entry(manifest) for manifest in state().service.manifests()]))


def _sent() -> list[tuple[str, Source]]:
    kind = request.mimetype
    if kind == "multipart/form-data":
        return sent_files()
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise Problem(
            "media_type", f"The body is {kind}; expected multipart/form-data, image/* or application/octet-stream."
        )
    body = bytes(whole_body())
    if not body:
        raise Problem("no_picture", "No picture was sent: the body is empty; send the bytes of one.")
    return [("body", body)]


def _more(answer: Answer | Refused, served: Served, wanted: Parameters, limit: float | None) -> dict[str, Any]:
    """Return what a client wants to know besides the row; ``limit`` is that of the wanted prediction set."""
    if isinstance(answer, Refused):
        return {}
    classes, scores = served.engine.classes, answer.outcome.scores
    order = np.argsort(-scores, kind="stable")
    more = scores_of(answer.outcome, classes) if wanted.scores else {}
    if wanted.top_k is not None:
        more["top"] = [Ranked(classes[index], float(scores[index])) for index in order[: wanted.top_k]]
    if limit is not None:
        inside = prediction_sets(scores[np.newaxis], limit)[0]
        more["prediction_set"] = [classes[index] for index in order if inside[index]]
    return more


def _entry(manifest: Manifest) -> ModelEntry:
    figures: Accuracy = manifest.measured.cascade
    return ModelEntry(
        manifest.name,
        manifest.classes,
        manifest.measured.pictures,
        figures.top1,
        list(figures.top1_interval),
        figures.top2,
        list(figures.top2_interval),
        manifest.measured.routed,
    )


def json_response(
    content: msgspec.Struct | Sequence[msgspec.Struct], status: int = 200, media_type: str = "application/json"
) -> Response:
    """Return a response that holds a struct, or several, as JSON."""
    return Response(msgspec.json.encode(content), status, content_type=media_type)


def problem_response(problem: Problem) -> Response:
    """Return a problem as ``application/problem+json``."""
    details = ProblemDetails(
        f"urn:canonistia:problem:{problem.kind}",
        problem.kind.replace("_", " "),
        STATUS[problem.kind],
        problem.detail,
        problem.detail,
    )
    return json_response(details, problem.status, "application/problem+json")
