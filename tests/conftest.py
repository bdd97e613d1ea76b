"""Shared fixtures: small data made on the spot, and one cascade that the commands train and export from it."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import settings
from PIL import Image

import canonistia

# A busy machine, or a run that measures coverage, is slow without being wrong.
settings.register_profile("canonistia", deadline=None)
settings.load_profile("canonistia")

CLASSES = ("dots", "rows", "sky")


def draw(label: str, seed: int, size: tuple[int, int] = (72, 60)) -> Image.Image:
    """Return a small colour picture of a class; every seed gives a different one."""
    rng = np.random.default_rng([seed, *os.fsencode(label)])
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(float)
    if label == "rows":
        value = 120 + 100 * np.sin(y / rng.uniform(1.5, 2.5) + rng.uniform(0, 6))
    elif label == "dots":
        value = 120 + 100 * np.sin(x / rng.uniform(1.5, 2.5)) * np.sin(y / rng.uniform(1.5, 2.5))
    else:
        value = 60 + 150 * y / height + rng.uniform(-20, 20)
    tint = rng.uniform(0.7, 1.0, 3)
    pixels = value[..., None] * tint + rng.normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_class_folders(folder: Path, counts: dict[str, int], first_seed: int) -> None:
    """Write PNG pictures into one folder per class."""
    for label, count in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for seed in range(first_seed, first_seed + count):
            draw(label, seed).save(folder / label / f"{seed:03d}.png")


def write_data_set(folder: Path, training: int = 10, validation: int = 8) -> Path:
    """Write a split data set of three classes."""
    write_class_folders(folder / "training", dict.fromkeys(CLASSES, training), 0)
    write_class_folders(folder / "validation", dict.fromkeys(CLASSES, validation), 500)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _heeded_signals() -> None:
    """Let Ctrl-C reach the commands that tests start, also where a shell started the tests with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _private_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the machine's caches and accounts out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANONISTIA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.delenv("CANONISTIA_MODELS", raising=False)
        yield


Run = Callable[..., Result]


def run_command(*words: object) -> Result:
    """Run a canonistia command in this process."""
    return CliRunner().invoke(canonistia.main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def run() -> Run:
    """Return a caller of canonistia commands: ``run("classify", path).exit_code``."""
    return run_command


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of three classes, split."""
    return write_data_set(tmp_path_factory.mktemp("tiny") / "data")


SMALL = ("--backbone", "efficientnet_lite0", "--size", "64", "--tracker", "none")


@pytest.fixture(scope="session")
def tiny_main(tiny_data: Path) -> Path:
    """Return the run of a main model trained on the tiny data set, with a W&B run."""
    out = tiny_data.parent / "runs" / "main"
    options = (*SMALL[:-1], "offline", "--epochs", 6, "--lr", 0.01)
    result = run_command("train-main", tiny_data, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def tiny_subs(tiny_data: Path, tiny_main: Path) -> Path:
    """Return submodels on a shared trunk for the tiny main model."""
    out = tiny_data.parent / "runs" / "subs"
    options = ("--main", tiny_main, "--out", out, *SMALL, "--epochs", 6, "--lr", 0.01)
    result = run_command("train-sub", tiny_data, *options)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def tiny_bundle(tiny_data: Path, tiny_main: Path, tiny_subs: Path) -> Path:
    """Return the exported bundle of the tiny cascade."""
    return _exported(tiny_data, tiny_main, tiny_subs, "tiny")


@pytest.fixture(scope="session")
def routing_bundle(tiny_bundle: Path) -> Path:
    """Return a bundle that routes every picture to the submodels."""
    folder = shutil.copytree(tiny_bundle, tiny_bundle.with_name("routing"))
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["rules"]["routing"] = {"rule": "confidence", "threshold": 1.01}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="session")
def both_subs(tiny_data: Path, tiny_main: Path) -> Path:
    """Return submodels whose heads read the features of the main model and of a trunk with a larger image size."""
    out = tiny_data.parent / "runs" / "both"
    words = ("--backbone", "efficientnet_lite0", "--size", 96, "--tracker", "none", "--features", "both")
    result = run_command("train-sub", tiny_data, "--main", tiny_main, "--out", out, *words, "--epochs", 6, "--lr", 0.01)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def both_bundle(tiny_data: Path, tiny_main: Path, both_subs: Path) -> Path:
    """Return the exported bundle of a cascade whose heads read the features of both stages."""
    return _exported(tiny_data, tiny_main, both_subs, "both")


def _exported(data: Path, main: Path, subs: Path, name: str) -> Path:
    out = data.parent / "models" / name
    result = run_command("export", "--main", main, "--subs", subs, "--data", data, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def scene15() -> Path:
    """Return the 15-Scene data set, or skip where this machine has none."""
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "scene15"
    folder = Path(os.environ.get("CANONISTIA_SCENE15", beside))
    if not folder.is_dir():
        pytest.skip("the 15-Scene data set is not here; set CANONISTIA_SCENE15 to run this test")
    return folder
