"""What deploy/ holds, checked by what needs no engine: hadolint, Kubernetes' schemas, systemd, and a real nginx."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import draw
from tests.serving import free_port, running
from tests.waiting import started, wait_until
from tests.webapp.test_nginx import NGINX, asked, own_user, status_of
from tests.webapps import encoded

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
MB = 2**20
_BASE_MB = 150  # an upper estimate of what python:3.13-slim takes unpacked
_OPTION = re.compile(r"\bCANONISTIA_SERVE_[A-Z_]+")


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def validate(document: dict[str, Any]) -> None:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed: pip install -e .[dev]")
    import kubernetes_validate

    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install -e .[dev]")
    subprocess.run([hadolint, "--failure-threshold", "info", DEPLOY / "Dockerfile"], check=True)


def test_the_image_has_two_stages_a_user_without_rights_and_a_health_check() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    stages = [line for line in lines if line.startswith("FROM ")]
    last = lines[lines.index(stages[-1]) :]
    assert len(stages) == 2
    assert any(re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", line) for line in last)
    assert any(line.startswith("HEALTHCHECK") for line in last)
    assert [line for line in last if line.startswith("COPY")] == ["COPY --from=build /opt/canonistia /opt/canonistia"]


def test_the_image_is_built_from_all_that_the_wheel_needs() -> None:
    copied = {
        word
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    allowed = {
        line.removeprefix("!").removesuffix("/")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = {name.rstrip("*") for name in setup["options.packages.find"]["include"].split()}
    assert packages <= copied


def test_what_is_installed_and_the_base_are_less_than_400_mb() -> None:
    models = sum(path.stat().st_size for path in (ROOT / "models" / "scene15").rglob("*") if path.is_file())
    installed = sum(size_of(name) for name in serving_packages())
    assert (installed + models) / MB + _BASE_MB < 400


def serving_packages() -> set[str]:
    """Return the packages of a serving install, by the requirements of each."""
    found: set[str] = set()
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    waiting = setup["options"]["install_requires"].split()
    while waiting:
        requirement = waiting.pop()
        name = re.split(r"[\s<>=!~;\[(]", requirement)[0].lower().replace("_", "-")
        if name in found or "extra ==" in requirement:
            continue
        try:
            waiting += requires(name) or []
        except PackageNotFoundError:  # for another system or an older Python
            continue
        found.add(name)
    return found


def size_of(package: str) -> int:
    files = distribution(package).files or []
    return sum(Path(file.locate()).stat().st_size for file in files if Path(file.locate()).is_file())


def test_compose_builds_the_image_and_puts_nginx_in_front_of_it() -> None:
    (compose,) = documents(DEPLOY / "compose.yaml")
    services = compose["services"]
    build = services["canonistia"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in services.values())
    assert services["nginx"]["depends_on"]["canonistia"]["condition"] == "service_healthy"
    (mount,) = services["nginx"]["volumes"]
    assert (DEPLOY / mount.split(":")[0]).is_file()
    (port,) = services["canonistia"]["expose"]
    assert f"proxy_pass http://canonistia:{port};" in (DEPLOY / "nginx.conf").read_text()


@pytest.mark.parametrize("name", ["deployment", "service", "autoscaler"])
def test_kubernetes_takes_the_manifests(name: str) -> None:
    for document in documents(DEPLOY / "kubernetes" / f"{name}.yaml"):
        validate(document)


def test_the_manifests_belong_together() -> None:
    (deployment,) = documents(DEPLOY / "kubernetes" / "deployment.yaml")
    (autoscaler,) = documents(DEPLOY / "kubernetes" / "autoscaler.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    service, budget = documents(DEPLOY / "kubernetes" / "service.yaml")
    assert service["spec"]["selector"].items() <= labels.items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == 8000
    assert {service["spec"]["ports"][0]["targetPort"]} == {port["name"]}


def test_kserve_takes_the_inference_service() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: pip install -e .[dev]")
    (document,) = documents(DEPLOY / "kubernetes" / "inference-service.yaml")
    schema = json.loads((ROOT / "tests" / "inference_service.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    predictor = document["spec"]["predictor"]
    own = schema["properties"]["spec"]["properties"]["predictor"]["properties"].keys() - {"containers"}
    pod = {key: value for key, value in predictor.items() if key not in own}  # the rest is a pod's
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": pod})


def environments() -> Iterator[tuple[str, str]]:
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file():
            yield from ((str(path.relative_to(DEPLOY)), name) for name in _OPTION.findall(path.read_text()))


def test_every_option_that_is_set_there_is_one_of_the_command() -> None:
    from webapp.cli import serve

    known = {
        f"CANONISTIA_SERVE_{parameter.opts[0].lstrip('-').replace('-', '_').upper()}" for parameter in serve.params
    }
    assert [found for found in environments() if found[1] not in known] == []


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = (DEPLOY / "systemd" / "canonistia.service").read_text()
    installed = unit.replace("/opt/canonistia/bin/canonistia", sys.executable)  # it must exist
    assert installed != unit
    (tmp_path / "canonistia.service").write_text(installed)
    shutil.copy(DEPLOY / "systemd" / "canonistia.socket", tmp_path)
    for name in ("canonistia.service", "canonistia.socket"):
        done = subprocess.run([analyze, "verify", tmp_path / name], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed; on Debian: apt-get install nginx-light")
def test_nginx_takes_its_file_and_passes_on_what_the_service_needs(light_bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    with running("--model", light_bundle, "--behind-proxy", "--log", "json") as server:
        text = (DEPLOY / "nginx.conf").read_text()
        for here, there in (
            ("/tmp/", f"{tmp_path}/"),
            ("8080", f"127.0.0.1:{port}"),
            ("canonistia:8000", f"127.0.0.1:{server.port}"),
        ):
            assert here in text
            text = text.replace(here, there)
        (tmp_path / "nginx.conf").write_text(f"daemon off;\nuser {own_user()};\n{text}")
        command = [str(NGINX), "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
        subprocess.run([*command, "-t", "-q"], check=True)
        with started(command) as process:
            wait_until(lambda: status_of(port, "/v2/health/ready") == 200)
            status, _, headers = asked(port, "/api/v1/classify", encoded(draw("sky", 1)))
            assert status == 200
            assert any(headers["X-Request-ID"] in line for line in server.said())
            assert status_of(port, "/metrics") == 404
            assert asked(port, "/api/v1/classify", bytes(32 * MB + 1))[0] == 413
            with ThreadPoolExecutor(60) as clients:
                answers = list(clients.map(lambda _: asked(port, "/api/v1/classify", b"no picture")[0], range(60)))
            assert set(answers) == {415, 429}
            assert status_of(port, "/") == 200  # only what is sent is limited
            process.terminate()
            process.wait(timeout=30)
