"""A training that is killed goes on to the very result that it would have had."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import trainers.loop.fit
from cascade.errors import CanonistiaError
from tests.conftest import Run, write_data_set
from trainers.commands.train_main import train_main
from trainers.data.loader import Batch
from trainers.loop.step import Stepper
from trainers.networks.config import NetworkConfig
from trainers.recipe import MAIN_DEFAULTS, Recipe
from trainers.runs.checkpoint import load_state
from trainers.runs.folder import STATE
from trainers.runs.opening import check_same_config

NETWORK = NetworkConfig("timm/test_vit", size=32, pretrained=False)
# Everything that has a state: averaging, a schedule, mixing, dropout, augmentation, small then large, thawing.
RECIPE = replace(
    MAIN_DEFAULTS,
    epochs=4,
    batch_size=4,
    unfreeze="head,last-2@2,all@3",
    mix="both",
    augment="strong",
    dropout=0.3,
    patience=3,
    precision="fp32",  # auto measures, and may choose another one for the run that is compared
    tracker="none",
)
# Processes forked from a fresh one: this one has threads, which a fork would leave behind with their locks.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])
STEPS = 4 * 3  # four epochs of three batches


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("few") / "data", training=4, validation=2)


@pytest.fixture(scope="module")
def uninterrupted(few: Path) -> Path:
    train_main(few, few.parent / "whole", NETWORK, RECIPE, report=False)
    return few.parent / "whole"


def killed_after(steps: int, few: Path, out: Path, spot: str) -> None:
    """Train in another process, which is killed in or after a number of steps."""
    process = FORKS.Process(target=train_until, args=(steps, few, out, spot))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()


def train_until(steps: int, few: Path, out: Path, spot: str) -> None:
    """Train, and kill this process at a spot."""
    taken = 0
    honest_step, honest_save = Stepper.step, trainers.loop.fit.save_state

    def step(self: Stepper, batch: Batch, epoch: int) -> float:
        nonlocal taken
        taken += 1
        if spot == "step" and taken == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest_step(self, batch, epoch)

    def save(folder: Path, state: object) -> None:
        if spot == "before saving" and taken >= steps:
            os.kill(os.getpid(), signal.SIGKILL)
        honest_save(folder, state)
        if taken >= steps:
            os.kill(os.getpid(), signal.SIGKILL)

    Stepper.step, trainers.loop.fit.save_state = step, save
    train_main(few, out, NETWORK, RECIPE, report=False)


def same(first: Path, second: Path) -> bool:
    one, two = load_file(first / "last.safetensors"), load_file(second / "last.safetensors")
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("number", range(10))
def test_after_a_kill_at_a_random_moment_the_final_weights_are_the_same(
    number: int, few: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    chance = random.Random(number)
    steps, spot = chance.randint(1, STEPS), chance.choice(["step", "before saving", "after saving"])
    killed_after(steps, few, tmp_path / "run", spot)
    train_main(few, tmp_path / "run", NETWORK, RECIPE, resume=True, report=False)
    assert same(uninterrupted, tmp_path / "run"), (steps, spot)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "1", "2", "3", "4"]
    assert not (tmp_path / "run" / STATE).exists()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_in_the_midst_of_an_epoch_and_says_how_to_go_on(
    sign: signal.Signals, few: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, taken = Stepper.step, []

    def step(self: Stepper, batch: Batch, epoch: int) -> float:
        taken.append(epoch)
        if len(taken) == 5:
            os.kill(os.getpid(), sign)
        return honest(self, batch, epoch)

    monkeypatch.setattr(Stepper, "step", step)
    with pytest.raises(CanonistiaError, match=rf"ended by {sign.name} in epoch 2, step 2 of 3; .*--resume"):
        train_main(few, tmp_path / "run", NETWORK, RECIPE, report=False)
    state = load_state(tmp_path / "run")
    assert state is not None
    assert (state.epoch, state.step) == (2, 2)
    train_main(few, tmp_path / "run", NETWORK, RECIPE, resume=True, report=False)
    assert len(taken) == STEPS  # no step was taken twice
    assert same(uninterrupted, tmp_path / "run")


def test_a_finished_run_is_left_alone(
    run: Run, few: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (uninterrupted / "last.safetensors").stat().st_mtime_ns
    train_main(few, uninterrupted, NETWORK, RECIPE, resume=True, report=False)
    assert "nothing to resume" in capsys.readouterr().err
    assert (uninterrupted / "last.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.5}, "other settings .lr 0.001, now 0.5"),
        ({"epochs": 9, "seed": 3}, "epochs 4, now 9, seed 0, now 3"),
    ],
)
def test_a_resume_with_other_settings_is_refused(
    few: Path, uninterrupted: Path, change: dict[str, float], message: str
) -> None:
    recipe: Recipe = replace(RECIPE, **change)
    with pytest.raises(CanonistiaError, match=message):
        train_main(few, uninterrupted, NETWORK, recipe, resume=True, report=False)


def test_a_run_from_before_an_option_existed_has_its_default(tmp_path: Path) -> None:
    now = {**Recipe().as_dict(), "classes": ["a", "b"]}
    before = {name: value for name, value in now.items() if name != "clip"}
    check_same_config(tmp_path, before, now)
    with pytest.raises(CanonistiaError, match=r"other settings .clip 5.0, now 0.0"):
        check_same_config(tmp_path, before, {**now, "clip": 0.0})


def test_a_resume_after_a_class_vanished_is_refused(few: Path, uninterrupted: Path, tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data", training=4, validation=2)
    for split in ("training", "validation"):
        (data / split / "sky").rename(data / split / ".sky")
    with pytest.raises(CanonistiaError, match="trained on the classes dots, rows, sky; the data has dots, rows"):
        train_main(data, uninterrupted, NETWORK, RECIPE, resume=True, report=False)


def test_a_picture_that_vanishes_ends_the_training_with_one_sentence(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data_set(tmp_path / "data", training=4, validation=2)
    honest = Stepper.step

    def step(self: Stepper, batch: Batch, epoch: int) -> float:
        if epoch == 2:
            for path in (data / "training" / "sky").iterdir():
                path.unlink()
        return honest(self, batch, epoch)

    monkeypatch.setattr(Stepper, "step", step)
    with pytest.raises(CanonistiaError, match=r"^1 picture cannot be read: .*sky/\d+.png: cannot be opened"):
        train_main(data, tmp_path / "run", NETWORK, replace(RECIPE, workers=1), report=False)
    state = load_state(tmp_path / "run")
    assert state is not None
    assert state.epoch == 2  # the first epoch is kept


def test_a_full_disk_keeps_the_last_state(few: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed_after(4, few, out, "after saving")
    before = (out / STATE).read_bytes()
    # No file of this process may grow beyond 1 MB: the next state cannot be finished.
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)); "
        "from pathlib import Path; from tests.trainers.test_resume import NETWORK, RECIPE; "
        "from trainers.commands.train_main import train_main; import cascade.errors\n"
        "try: train_main(Path(sys.argv[1]), Path(sys.argv[2]), NETWORK, RECIPE, resume=True)\n"
        "except cascade.errors.CanonistiaError as error: sys.exit(str(error))"
    )
    done = subprocess.run([sys.executable, "-c", script, few, out], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "could not be written (File too large" in done.stderr
    assert "--resume" in done.stderr
    assert (out / STATE).read_bytes() == before
    assert not list(out.glob("*.partial"))
    train_main(few, out, NETWORK, RECIPE, resume=True, report=False)
    assert same(uninterrupted, out)


def test_a_full_gpu_is_one_sentence(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Stepper, batch: Batch) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stepper, "_gradients", full)
    with pytest.raises(CanonistiaError, match=r"too little memory for a step of 4 pictures; lower --batch-size"):
        train_main(few, tmp_path / "run", NETWORK, RECIPE, report=False)


def test_patience_ends_a_training_that_no_longer_improves(few: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, unfreeze="head", mix="none", lr=1e-12, epochs=50, patience=2, augment="light")
    train_main(few, tmp_path / "run", NETWORK, recipe, report=False)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 3


def test_resume_starts_what_was_not_begun(run: Run, few: Path, tmp_path: Path) -> None:
    arguments = ("--backbone", "timm/test_vit", "--no-pretrained", "--size", 32, "--tracker", "none", "--epochs", 1)
    done = run("train-main", few, "--out", tmp_path / "run", *arguments, "--resume")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "summary.json").exists()
