"""What ``import canonistia`` gives, and what it costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import canonistia
from cascade.inference.engine import Engine
from cascade.inference.prediction import Prediction

ROOT = Path(__file__).resolve().parent.parent


def test_everything_promised_is_there() -> None:
    assert canonistia.Engine is Engine
    assert canonistia.Prediction is Prediction
    assert all(hasattr(canonistia, name) for name in canonistia.__all__)
    assert not hasattr(canonistia, "Egnine")


def test_a_loaded_bundle_gives_the_exported_types(tiny_bundle: Path, tiny_data: Path) -> None:
    engine = canonistia.load(str(tiny_bundle))
    picture = next((tiny_data / "validation").rglob("*.png"))
    assert isinstance(engine, canonistia.Engine)
    assert isinstance(engine.classify([picture])[0], canonistia.Prediction)


def test_the_import_loads_neither_numpy_nor_the_runtime() -> None:
    script = "import sys, canonistia; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"numpy", "onnxruntime", "PIL", "msgspec"} & set(done.stdout.split())


@pytest.mark.parametrize("package", ["cascade", "trainers", "export", "webapp"])
def test_every_package_is_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    assert f"{package} = py.typed" in (ROOT / "setup.cfg").read_text()
