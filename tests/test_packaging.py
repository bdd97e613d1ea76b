"""The wheel, installed elsewhere, serves the shipped bundle."""

import os
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from pathlib import Path

import pytest

from tests.serving import served

ROOT = Path(__file__).resolve().parent.parent
VENDORED = [f"static/vendor/{name}" for name in ("htmx.min.js", "htmx.LICENSE", "pico.min.css", "pico.LICENSE")]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a fresh environment with the wheel; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("elsewhere")
    wheels = folder / "wheels"
    # Built here, not in the checkout: modules that were moved since the last build there would get into the wheel.
    (folder / "distutils.cfg").write_text(
        f"[build]\nbuild_base = {folder / 'build'}\n[egg_info]\negg_base = {folder}\n"
    )
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(ROOT)]
    environment = os.environ | {"DIST_EXTRA_CONFIG": str(folder / "distutils.cfg")}
    subprocess.run(build, check=True, capture_output=True, env=environment)
    (wheel,) = wheels.glob("*.whl")
    installed = folder / "env"
    venv.create(installed, with_pip=False)
    python = installed / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = installed.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run_elsewhere(python: Path, folder: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CANONISTIA"))}
    command = [str(python), "-m", "canonistia", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_shipped_bundle_travels_under_share(elsewhere: Path, tmp_path: Path) -> None:
    (line,) = run_elsewhere(elsewhere, tmp_path, "models").splitlines()
    assert line.startswith("scene15: 15 classes")
    assert line.endswith(str(Path("share", "canonistia", "models", "scene15")))


def test_the_wheel_classifies(elsewhere: Path, tmp_path: Path) -> None:
    table = run_elsewhere(elsewhere, tmp_path, "classify", str(ROOT / "data" / "samples"))
    assert table.count("%") == 2 * len(list((ROOT / "data" / "samples").glob("*.jpg"))) == 32


def test_the_wheel_serves_the_page_with_its_style(elsewhere: Path, tmp_path: Path) -> None:
    with served(Path("scene15"), python=elsewhere, folder=tmp_path) as address:
        for path in ("", "static/page.css", "static/page.js", "static/icon.svg", *VENDORED):
            with urllib.request.urlopen(address + path) as answer:
                assert answer.status == 200
                assert answer.read()


def test_a_program_that_uses_the_wheel_is_checked_against_its_types(elsewhere: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import canonistia\n"
        "answer = canonistia.load('scene15').classify(['a.jpg'])[0]\n"
        "reveal_type(answer)\n"
        "answer.label_3\n"
        "canonistia.load(threads='two')\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--python-executable",
        str(elsewhere),
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    command += ["--no-error-summary", program.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = done.stdout.splitlines()
    assert found[0] == 'program.py:3: note: Revealed type is "cascade.inference.prediction.Prediction"', done.stdout
    assert '"Prediction" has no attribute "label_3"' in found[1]
    assert 'Argument "threads" to "load" has incompatible type "str"' in found[2]
