"""The Flask application: the page, the API, the inference protocol and the metrics around a service."""

import logging
import time
from types import TracebackType

from flask import Blueprint, Flask, Request, Response, g, request
from limits.storage import Storage
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from webapp.api.open_inference import infer
from webapp.api.openapi import documentation
from webapp.api.v1 import api, problem_response
from webapp.pages.page import page, problem_page
from webapp.problems import Problem, problem_of
from webapp.requests import bodies, logs, security
from webapp.requests.admission import Admission
from webapp.requests.connection import ClientLeftError, TimeLimitedBody
from webapp.requests.corrections import Collector
from webapp.requests.decoding_lanes import DecodingLanes
from webapp.requests.state import KEY, State, state
from webapp.requests.uploads import stored_in_memory
from webapp.serving.limits import share_of_cores
from webapp.serving.metrics import Metrics
from webapp.serving.service import Service
from webapp.settings import Settings

_JSON_PATHS = ("/api/v1", "/v2", "/metrics")  # problems are answered in JSON
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_LOG = logging.getLogger("canonistia.app")


class _Request(Request):
    """A request that keeps its uploads in memory."""

    _get_file_stream = staticmethod(stored_in_memory)


class _App(Flask):
    """An application that logs no path: a client chooses the path."""

    def log_exception(self, exc_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None]) -> None:
        _LOG.error("failed on %s (request %s)", logs.route(), g.get("request_id"), exc_info=exc_info)


def create_app(
    service: Service,
    metrics: Metrics,
    settings: Settings | None = None,
    collector: Collector | None = None,
    rates: Storage | None = None,
) -> Flask:
    """Return the application for a service; with a collector, visitors may correct its answers.

    ``rates`` counts the requests of each client; None: this application counts for itself.
    """
    settings = settings or Settings()
    app = _App(__name__)
    app.request_class = _Request
    cores = share_of_cores(settings.workers)
    app.extensions[KEY] = State(
        service, settings, metrics, Admission(settings, metrics), DecodingLanes(cores), collector
    )
    logs.install(app)
    security.install(app, settings, rates)
    for blueprint in _blueprints(settings):
        app.register_blueprint(blueprint)

    @app.get("/metrics")
    def show_metrics() -> Response:
        return Response(metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")

    app.before_request(_limit_body_time)
    bodies.install(app, settings)  # after the time limit, which the encoded body has

    @app.after_request
    def count(response: Response) -> Response:
        method = request.method if request.method in _METHODS else "other"  # a client may send any string
        metrics.requests.labels(method, logs.route(), response.status_code).inc()
        taken = time.monotonic() - g.started
        metrics.duration.labels(logs.route(), g.get("model", ""), response.status_code).observe(taken)
        return response

    @app.errorhandler(Problem)
    def refuse(problem: Problem) -> Response:
        return _refusal(problem)

    @app.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        if isinstance(error, RequestRedirect):
            return Response(status=error.code, headers={"Location": error.new_url})
        response = _refusal(problem_of(error, request.root_path))
        for name, value in error.get_headers(request.environ):
            if name not in ("Content-Type", "Content-Length"):
                response.headers[name] = value
        return response

    @app.errorhandler(ClientLeftError)
    def log_client_left(_: ClientLeftError) -> Response:
        g.problem = "client_left"
        metrics.errors.labels("client_left").inc()
        return Response(status=499)  # nginx's status for a client that hung up; it is only logged

    return app


def _blueprints(settings: Settings) -> list[Blueprint]:
    blueprints = [page, api, infer, documentation]
    if settings.grpc:
        from webapp.api.grpc_calls import calls  # needs protobuf, which the plain install leaves out

        blueprints.append(calls)
    return blueprints


def _limit_body_time() -> None:
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.await_body()
        request.environ["wsgi.input"] = TimeLimitedBody(request.environ["wsgi.input"], connection)


def _refusal(problem: Problem) -> Response:
    g.problem = problem.kind
    if not problem.counted:
        state().metrics.errors.labels(problem.kind).inc()
    if request.path.startswith(_JSON_PATHS):
        response = problem_response(problem)
    else:
        response = Response(problem_page(problem), problem.status, content_type="text/html; charset=utf-8")
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(problem.retry_after)
    if problem.kind == "key":
        # One header line per challenge: Chromium opens its dialogue only then.
        response.headers["WWW-Authenticate"] = 'Basic realm="canonistia", charset="UTF-8"'
        response.headers.add("WWW-Authenticate", 'Bearer realm="canonistia"')
    return response
