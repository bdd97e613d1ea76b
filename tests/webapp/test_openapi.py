"""The OpenAPI document: complete, readable as a page, and true for every response (schemathesis)."""

from pathlib import Path

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, positive_data_acceptance

from tests.webapps import application
from webapp.api.openapi import describe

load_all_checks()

OPERATIONS = [
    ("POST", "/api/v1/classify"),
    ("GET", "/api/v1/models"),
    ("GET", "/v2"),
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v2/models/stats"),
    ("POST", "/v2/repository/index"),
    *(
        (method, f"/v2/models/{{name}}{version}{path}")
        for version in ("", "/versions/{version}")
        for method, path in (("GET", ""), ("GET", "/ready"), ("GET", "/stats"), ("POST", "/infer"))
    ),
]


@pytest.fixture(scope="module")
def app(tiny_bundle: Path) -> Flask:
    return application(tiny_bundle)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_breaks_the_contract(app: Flask, method: str, path: str) -> None:
    operation = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)[path][method]
    made = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @given(st.one_of(made))
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def check(case: schemathesis.Case) -> None:
        # No schema can describe valid pictures, so a well-formed request may be refused.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    check()


def test_every_route_for_programs_is_described(app: Flask) -> None:
    described = describe(app)["paths"]
    routes = {
        rule.rule.replace("<", "{").replace(">", "}")
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(("/api/v1/", "/v2")) and rule.endpoint != "documentation.openapi"
    }
    assert set(described) == routes == {path for _, path in OPERATIONS}


def test_the_document_can_be_read_as_a_page(app: Flask) -> None:
    page = app.test_client().get("/api/docs").text
    for path in describe(app)["paths"]:
        assert path in page
