"""Shared fixtures: small data made on the spot, and one cascade that the commands train and export from it."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from hypothesis import settings
from PIL import Image

import canonistia

# A busy machine, or a run that measures coverage, is slow without being wrong.
settings.register_profile("canonistia", deadline=None)
settings.load_profile("canonistia")

CLASSES = ("dots", "rows", "sky")

# The files that take longest are started first: at the end no process waits long for another's file.
LONGEST = (
    "trainers/test_families.py",
    "export/test_bundle.py",
    "trainers/test_processes.py",
    "cascade/test_cluster.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first, and leave the order of all others."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get("/".join(item.path.parts[-2:]), len(ranks)))


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


MadeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Return a maker of what all processes of the tests share: ``made_once("tiny_main/main", make)``.

    The first that asks for a path makes it, in a folder of its own; the others wait for it. No test changes it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"

    def make_once(name: str, make: Callable[[Path], None]) -> Path:
        path = shared / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.parent / "made"
        with FileLock(path.parent / "lock"):
            if not made.exists():
                make(path)
                made.touch()
        return path

    return make_once


def _succeed(*words: object) -> None:
    result = run_command(*words)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="session")
def tiny_data(made_once: MadeOnce) -> Path:
    """Return a data set of three classes, split."""
    return made_once("tiny_data/data", write_data_set)


SMALL = ("--backbone", "efficientnet_lite0", "--size", "64", "--tracker", "none")


@pytest.fixture(scope="session")
def tiny_main(made_once: MadeOnce, tiny_data: Path) -> Path:
    """Return the run of a main model trained on the tiny data set, with a W&B run."""
    options = (*SMALL[:-1], "offline", "--epochs", 6, "--lr", 0.01)
    return made_once("tiny_main/main", lambda out: _succeed("train-main", tiny_data, "--out", out, *options))


@pytest.fixture(scope="session")
def tiny_subs(made_once: MadeOnce, tiny_data: Path, tiny_main: Path) -> Path:
    """Return submodels on a shared trunk for the tiny main model."""
    options = ("--main", tiny_main, *SMALL, "--epochs", 6, "--lr", 0.01)
    return made_once("tiny_subs/subs", lambda out: _succeed("train-sub", tiny_data, "--out", out, *options))


@pytest.fixture(scope="session")
def tiny_bundle(made_once: MadeOnce, tiny_data: Path, tiny_main: Path, tiny_subs: Path) -> Path:
    """Return the exported bundle of the tiny cascade."""
    words = ("--main", tiny_main, "--subs", tiny_subs, "--data", tiny_data)
    return made_once("tiny_bundle/tiny", lambda out: _succeed("export", *words, "--out", out))


@pytest.fixture(scope="session")
def routing_bundle(made_once: MadeOnce, tiny_bundle: Path) -> Path:
    """Return a bundle that routes every picture to the submodels."""

    def copy(folder: Path) -> None:
        shutil.copytree(tiny_bundle, folder)
        manifest = json.loads((folder / "bundle.json").read_text())
        manifest["rules"]["routing"] = {"rule": "confidence", "threshold": 1.01}
        (folder / "bundle.json").write_text(json.dumps(manifest))

    return made_once("routing_bundle/routing", copy)


@pytest.fixture(scope="session")
def both_subs(made_once: MadeOnce, tiny_data: Path, tiny_main: Path) -> Path:
    """Return submodels whose heads read the features of the main model and of a trunk with a larger image size."""
    words = ("--backbone", "efficientnet_lite0", "--size", 96, "--tracker", "none", "--features", "both")
    options = ("--main", tiny_main, *words, "--epochs", 6, "--lr", 0.01)
    return made_once("both_subs/both", lambda out: _succeed("train-sub", tiny_data, "--out", out, *options))


@pytest.fixture(scope="session")
def both_bundle(made_once: MadeOnce, tiny_data: Path, tiny_main: Path, both_subs: Path) -> Path:
    """Return the exported bundle of a cascade whose heads read the features of both stages."""
    words = ("--main", tiny_main, "--subs", both_subs, "--data", tiny_data)
    return made_once("both_bundle/both", lambda out: _succeed("export", *words, "--out", out))


@pytest.fixture
def written_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Start with an empty cache, and return the kinds of the graphs that are written from then on."""
    from export.bundles import model_files
    from trainers.features import graph

    kinds: list[str] = []
    honest = graph.write_onnx

    def count(module: object, *more: Any) -> None:
        kinds.append(type(module).__name__)
        honest(module, *more)  # type: ignore[arg-type]

    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "cache"))
    for place in (graph, model_files):
        monkeypatch.setattr(place, "write_onnx", count)
    return kinds


# A network without weights: for what does not depend on what a network learned.
LIGHT = ("--backbone", "timm/test_resnet", "--no-pretrained", "--size", 32, "--tracker", "none", "--epochs", 1)


@pytest.fixture(scope="session")
def few_data(made_once: MadeOnce) -> Path:
    """Return a data set with as few pictures as can be trained and exported from."""
    return made_once("few_data/data", lambda folder: write_data_set(folder, training=2, validation=5))


@pytest.fixture(scope="session")
def light_main(made_once: MadeOnce, few_data: Path) -> Path:
    """Return the run of a main model that is trained and exported in a moment, and knows nothing."""
    return made_once("light_main/main", lambda out: _succeed("train-main", few_data, "--out", out, *LIGHT))


@pytest.fixture(scope="session")
def light_subs(made_once: MadeOnce, few_data: Path, light_main: Path) -> Path:
    """Return submodels on a shared trunk for the light main model."""
    words = ("--main", light_main, *LIGHT)
    return made_once("light_subs/subs", lambda out: _succeed("train-sub", few_data, "--out", out, *words))


@pytest.fixture(scope="session")
def light_bundle(made_once: MadeOnce, few_data: Path, light_main: Path, light_subs: Path) -> Path:
    """Return the exported bundle of the light cascade."""
    words = ("--main", light_main, "--subs", light_subs, "--data", few_data)
    return made_once("light_bundle/light", lambda out: _succeed("export", *words, "--out", out))


@pytest.fixture(scope="session")
def scene15() -> Path:
    """Return the 15-Scene data set, or skip where this machine has none."""
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "scene15"
    folder = Path(os.environ.get("CANONISTIA_SCENE15", beside))
    if not folder.is_dir():
        pytest.skip("the 15-Scene data set is not here; set CANONISTIA_SCENE15 to run this test")
    return folder
