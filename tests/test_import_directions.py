"""The rooms of the house: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("cascade", "trainers", "export", "webapp")
ALLOWED = {
    "cascade": {"cascade"},
    "webapp": {"webapp", "cascade"},
    "trainers": {"trainers", "cascade"},
    "export": {"export", "trainers", "cascade"},
}
TRAINING_ONLY = {"torch", "torchvision", "timm", "wandb", "onnx", "onnxscript", "sklearn", "scipy", "imagehash"}


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).partition(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_it_may(room: str) -> None:
    files = sorted((ROOT / room).glob("*.py"))
    assert files
    for path in files:
        strangers = imported_names(path) & (set(ROOMS) | {"canonistia"}) - ALLOWED[room]
        assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"


@pytest.mark.parametrize("room", ["cascade", "webapp"])
def test_the_serving_rooms_name_no_training_library(room: str) -> None:
    for path in sorted((ROOT / room).glob("*.py")):
        assert not imported_names(path) & TRAINING_ONLY, path


SERVING_SCRIPT = """
import sys
import canonistia, cascade, webapp.app, webapp.server
from webapp.metrics import Metrics
from webapp.service import Service
from webapp.settings import Settings
from pathlib import Path
from click.testing import CliRunner
for path in Path(sys.argv[1]).glob("*.py"):
    if path.stem not in ("__init__", "plots", "cluster", "cluster_worker"):
        __import__(f"cascade.{path.stem}")
result = CliRunner().invoke(canonistia.main, ["classify", sys.argv[2], "--model", sys.argv[3]])
assert result.exit_code == 0, result.output
metrics = Metrics()
service = Service([Path(sys.argv[3])], metrics)
client = webapp.app.create_app(service, metrics, Settings(rate="9/minute")).test_client()
for path in ("/", "/api/docs", "/metrics", "/v2"):
    assert client.get(path).status_code == 200, path
assert client.post("/", data={"pictures": open(sys.argv[2], "rb")}).status_code == 200
service.close()
print("\\n".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""

# Third-party packages that a serving process may load; anything else is a new dependency to decide on.
SERVING_LIBRARIES = {
    "PIL", "blinker", "canonistia", "cascade", "click", "deprecated", "flask", "flask_limiter", "gunicorn",
    "itsdangerous", "jinja2", "limits", "markupsafe", "msgspec", "numpy", "onnxruntime", "ordered_set", "packaging",
    "prometheus_client", "typing_extensions", "typing_inspection", "webapp", "werkzeug", "wrapt",
}  # fmt: skip


def test_serving_loads_nothing_outside_the_allow_list(tiny_bundle: Path, tiny_data: Path) -> None:
    picture = next((tiny_data / "validation").rglob("*.png"))
    command = [sys.executable, "-c", SERVING_SCRIPT, str(ROOT / "cascade"), str(picture), str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert not loaded & TRAINING_ONLY
    outside = {name for name in loaded if not name.startswith("_")} - set(sys.stdlib_module_names) - SERVING_LIBRARIES
    assert not {name for name in outside if "finder" not in name}, outside
