"""The OpenAPI document: complete, readable as a page, and true for every response (schemathesis)."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, positive_data_acceptance

from tests.webapps import application
from webapp.api.openapi import describe
from webapp.keys import ApiKey, Keyring
from webapp.settings import Settings

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
        # Encoded answers are asked for by default, and are not decoded from an application in this process.
        plain = {"Accept-Encoding": "identity"}
        case.call_and_validate(headers=plain, excluded_checks=[positive_data_acceptance])

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


def test_the_document_is_valid(app: Flask) -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not installed")
    validator.validate(describe(app))


LINTERS = {
    "spectral": ["lint", "openapi.json", "--ruleset", "rules.yaml", "--fail-severity", "error"],
    "redocly": ["lint", "openapi.json"],
}


@pytest.mark.parametrize("linter", LINTERS)
def test_linters_find_no_error(app: Flask, linter: str, tmp_path: Path) -> None:
    program = shutil.which(linter)
    if program is None:
        pytest.skip(f"{linter} is not installed; it is a tool of Node")
    (tmp_path / "openapi.json").write_text(json.dumps(describe(app)))
    (tmp_path / "rules.yaml").write_text('extends: ["spectral:oas"]')
    done = subprocess.run([program, *LINTERS[linter]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_are_binary_strings_and_every_list_says_what_it_holds(app: Flask) -> None:
    document = describe(app)
    bodies = document["paths"]["/api/v1/classify"]["post"]["requestBody"]["content"]
    assert bodies["multipart/form-data"]["schema"]["properties"]["file"]["items"] == {
        "type": "string",
        "format": "binary",
    }

    def check(part: Any) -> None:
        if isinstance(part, dict):
            assert part.get("type") != "array" or isinstance(part.get("items"), dict), part
            for inner in part.values():
                check(inner)
        elif isinstance(part, list):
            for inner in part:
                check(inner)

    check(document)


def test_refusals_are_described_where_they_occur(app: Flask, tiny_bundle: Path) -> None:
    def statuses(settings: Settings, path: str, method: str = "get") -> set[str]:
        return set(describe(application(tiny_bundle, settings=settings))["paths"][path][method]["responses"])

    open_to_all, locked = Settings(), Settings(keyring=Keyring([ApiKey("secret")]), rate="9/minute")
    assert statuses(open_to_all, "/v2/health/live") == {"200", "500"}
    assert statuses(locked, "/v2/health/live") == {"200", "500"}
    assert statuses(open_to_all, "/api/v1/models") == {"200", "500"}
    assert statuses(locked, "/api/v1/models") == {"200", "401", "429", "500"}
    assert statuses(locked, "/api/v1/classify", "post") - statuses(open_to_all, "/api/v1/classify", "post") == {
        "401",
        "429",
    }
    assert statuses(Settings(trusted_hosts=("a",)), "/api/v1/models") == {"200", "400", "500"}
