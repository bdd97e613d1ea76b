"""What ``import canonistia`` gives, and what it costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import canonistia
from cascade.inference.engine import Engine
from cascade.inference.prediction import Prediction
from tests.conftest import Run

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


def test_a_deleted_current_folder_is_said(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    for words in (("train-main", tmp_path, "--out", tmp_path / "run"), ("tune", "none", tmp_path)):
        done = run(*words)
        assert done.exit_code == 1
        assert done.output == (
            "Error: the current folder cannot be used (No such file or directory); change to another one\n"
        )


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        PermissionError(13, "denied", b"/x"),
        FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("cascade.batch.job.check_inputs", refuse)
    done = run("classify", tmp_path)
    assert done.exit_code == 1
    assert done.output.startswith("Error: the system refused a file or a device")
    assert str(error.strerror) in done.output
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("words", [("models",), ("--help",), ("classify", "--help"), ("classify", "{picture}")])
def test_standard_output_that_is_full_or_closed_shows_no_traceback(tiny_data: Path, words: tuple[str, ...]) -> None:
    picture = next((tiny_data / "validation").rglob("*.png"))
    command = [sys.executable, "-m", "canonistia", *(word.format(picture=picture) for word in words)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the system refused a file or a device (No space left on device)")
    assert done.stderr.count("\n") == 1
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "")
