"""The rooms of the house: who may import whom."""

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.import_graph import import_graph, imports_of, modules_of

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("cascade", "trainers", "export", "webapp")
ALLOWED = {
    "cascade": {"cascade"},
    "webapp": {"webapp", "cascade"},
    "trainers": {"trainers", "cascade"},
    "export": {"export", "trainers", "cascade"},
}
# The rooms inside of a room, and the modules at its root: each may import those of the lines below its own.
FLOORS = {
    "cascade": (
        {"cli"},
        {"batch", "evaluation"},
        {"inference", "outputs"},
        {"bundle", "inputs"},
        {"images"},
        {"rules", "tables"},
        {"config_file", "destinations", "locks", "progress", "threads"},
        {"cgroups", "files"},
        {"errors", "privacy"},
        {"terminal"},
    ),
    "trainers": (
        {"cli"},
        {"commands"},
        {"loop"},
        {"features"},
        {"runs"},
        {"data"},
        {"distributed", "networks"},
        {"options"},
        {"recipe"},
    ),
    "export": ({"cli"}, {"commands"}, {"planning"}, {"bundles"}, {"fitting", "graphs"}, {"plan"}),
    "webapp": (
        {"cli"},
        {"server"},
        {"app", "grpc_server"},
        {"api", "pages"},
        {"requests"},
        {"serving"},
        {"extras", "problems", "settings"},
        {"keys"},
    ),
}
MOST_MODULES = 14
TRAINING_ONLY = {"torch", "torchvision", "timm", "wandb", "onnx", "onnxscript", "sklearn", "scipy", "imagehash"}


def wrong_rooms(root: Path) -> list[str]:
    """Return the imports of rooms that a room may not import."""
    return [
        f"{name} imports {found}"
        for name, path in modules_of(root, ROOMS).items()
        for found in imports_of(path)
        if top(found) in {*ROOMS, "canonistia"} - ALLOWED[top(name)]
    ]


def training_libraries(root: Path) -> list[str]:
    """Return the imports of training libraries by the serving rooms."""
    return [
        f"{name} imports {found}"
        for name, path in modules_of(root, ("cascade", "webapp")).items()
        for found in imports_of(path)
        if top(found) in TRAINING_ONLY
    ]


def wrong_floors(root: Path) -> list[str]:
    """Return the imports that lead upwards inside of a room, or to another inner room of the same floor."""
    graph = import_graph(root, ROOMS)
    floors = {(room, name): floor for room in ROOMS for floor, names in enumerate(FLOORS[room]) for name in names}
    unknown = [name for name in graph if name not in ROOMS and inner(name) not in floors]
    wrong = [
        f"{name} imports {found}"
        for name, imported in graph.items()
        if name not in ROOMS
        for found in sorted(imported - set(ROOMS))
        if top(found) == top(name) and inner(found) != inner(name)
        if name not in unknown and found not in unknown and floors[inner(found)] <= floors[inner(name)]
    ]
    return [*(f"{name} is on no floor" for name in unknown), *wrong]


def circle(root: Path) -> list[str]:
    """Return the modules of a circle of imports; none when there is none."""
    try:
        TopologicalSorter(import_graph(root, ROOMS)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def top(name: str) -> str:
    return name.partition(".")[0]


def inner(name: str) -> tuple[str, str]:
    room, _, inside = name.partition(".")
    return room, top(inside)


def test_a_room_imports_only_the_rooms_it_may() -> None:
    assert {top(name) for name in import_graph(ROOT, ROOMS)} == set(ROOMS)
    assert not wrong_rooms(ROOT)


def test_the_serving_rooms_name_no_training_library() -> None:
    assert not training_libraries(ROOT)


def test_inside_a_room_imports_lead_downwards() -> None:
    assert not wrong_floors(ROOT)


def test_no_imports_go_in_a_circle() -> None:
    assert not circle(ROOT)


def test_no_folder_holds_more_modules_than_can_be_overlooked() -> None:
    folders = [path for room in ROOMS for path in (ROOT / room, *(ROOT / room).rglob("*")) if path.is_dir()]
    counts = {str(path.relative_to(ROOT)): len(list(path.glob("*.py"))) for path in folders}
    assert not {name: count for name, count in counts.items() if count > MOST_MODULES}


def plant(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_planted_import_inside_a_subpackage_is_found(tmp_path: Path) -> None:
    plant(tmp_path, "cascade/images/decoding.py", "def decode():\n    from trainers.data import loader\n")
    plant(tmp_path, "webapp/pages/deep/page.py", "import torch.nn\n")
    assert wrong_rooms(tmp_path) == [
        "cascade.images.decoding imports trainers.data",
        "cascade.images.decoding imports trainers.data.loader",
    ]
    assert training_libraries(tmp_path) == ["webapp.pages.deep.page imports torch.nn"]


def test_a_planted_import_that_leads_upwards_is_found(tmp_path: Path) -> None:
    plant(tmp_path, "cascade/rules/routing.py", "from cascade.images.view import View\n")
    plant(tmp_path, "cascade/images/view.py", "import cascade.rules.routing\n")
    plant(tmp_path, "webapp/api/v1.py", "from webapp.pages import page\n")
    plant(tmp_path, "webapp/pages/page.py", "")
    plant(tmp_path, "export/attic/old.py", "")
    assert wrong_floors(tmp_path) == [
        "export.attic.old is on no floor",
        "cascade.rules.routing imports cascade.images.view",
        "webapp.api.v1 imports webapp.pages.page",
    ]


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    plant(tmp_path, "trainers/data/a.py", "from trainers.data.b import x\n")
    plant(tmp_path, "trainers/data/b.py", "def x():\n    from trainers.data import c\n")
    plant(tmp_path, "trainers/data/c.py", "import trainers.data.a\n")
    found = circle(tmp_path)
    assert set(found) == {"trainers.data.a", "trainers.data.b", "trainers.data.c"}


SERVING_SCRIPT = """
import sys
import canonistia, cascade, webapp.app, webapp.server
from webapp.serving.metrics import Metrics
from webapp.serving.service import Service
from webapp.settings import Settings
from pathlib import Path
from click.testing import CliRunner
root = Path(sys.argv[1])
for path in root.rglob("*.py"):
    if path.stem not in ("__init__", "plots", "cluster", "cluster_connection", "cluster_worker"):
        __import__(".".join(("cascade", *path.relative_to(root).with_suffix("").parts)))
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
    "PIL", "blinker", "canonistia", "cascade", "click", "cython_runtime", "deprecated", "flask", "flask_limiter",
    "gunicorn", "itsdangerous", "jinja2", "limits", "markupsafe", "msgspec", "numpy", "onnxruntime", "ordered_set",
    "packaging", "prometheus_client", "typing_extensions", "typing_inspection", "webapp", "werkzeug", "wrapt",
}  # fmt: skip


def test_serving_loads_nothing_outside_the_allow_list(tiny_bundle: Path, tiny_data: Path) -> None:
    picture = next((tiny_data / "validation").rglob("*.png"))
    command = [sys.executable, "-c", SERVING_SCRIPT, str(ROOT / "cascade"), str(picture), str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert not loaded & TRAINING_ONLY
    # What this interpreter loads in every process, whatever it runs: a distributor's sitecustomize, say.
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    loaded -= set(bare.stdout.split())
    outside = {name for name in loaded if not name.startswith("_")} - set(sys.stdlib_module_names) - SERVING_LIBRARIES
    assert not {name for name in outside if "finder" not in name}, outside
