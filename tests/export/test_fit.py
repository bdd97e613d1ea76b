"""From photos to a bundle in one command: the plan is kept, resumed, and never half-done."""

import json
import multiprocessing
import os
import random
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import pytest

import canonistia
import export.commands.fit as fit_command
from cascade.errors import CanonistiaError
from cascade.locks import exclusive
from export.commands.fit import FitRequest, Fitted, fit
from export.planning.ladder import Rung
from export.planning.plan import read_plan
from export.planning.text import result_lines
from tests.conftest import CLASSES, Run, write_class_folders, write_data_set
from tests.export.test_planning import SteadyMachine
from trainers.networks.config import NetworkConfig

MAIN = NetworkConfig("timm/test_resnet", size=32, pretrained=False)
LADDER = (Rung("tiny networks", MAIN, replace(MAIN, size=48)),)
# Processes forked from a fresh one: this one has threads, which a fork would leave behind with their locks.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


def steady(*_: object) -> SteadyMachine:
    """Return a machine that need not be measured."""
    return SteadyMachine()


@pytest.fixture(autouse=True)
def _steady_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_command, "Machine", steady)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("fit") / "photos", 4, 4)


@pytest.fixture(scope="module")
def fitted(photos: Path) -> Fitted:
    """Return a fit that nothing interrupted, scored on test pictures."""
    write_class_folders(photos.parent / "test", dict.fromkeys(CLASSES[:2], 3), 900)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_command, "Machine", steady)
        return fit(FitRequest(photos, photos.parent / "whole" / "mine", test=photos.parent / "test"), LADDER)


def request_like(fitted: Fitted, out: Path) -> FitRequest:
    return FitRequest(fitted.plan.photos, out, test=fitted.plan.test, resume=True)


def content(bundle: Path) -> dict[str, bytes]:
    """Return the files of a bundle; the day of its export may be another."""
    files = {str(path.relative_to(bundle)): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    manifest = json.loads(files["bundle.json"])
    files["bundle.json"] = json.dumps({**manifest, "provenance": {**manifest["provenance"], "created": ""}}).encode()
    del files["MODEL_CARD.md"]  # the same facts as text
    return files


def test_photos_become_a_bundle_with_its_plan_log_and_figures(fitted: Fitted) -> None:
    assert {path.name for path in fitted.plan.runs.iterdir()} == {
        "plan.json", "data.csv", "data.left_out.csv", "log.txt", "main", "subs", "submodels.json", "exported.json",
        "test.json",
    }  # fmt: skip
    assert fitted.test is not None
    assert fitted.test["pictures"] == 6
    assert canonistia.load(fitted.bundle).classes == CLASSES
    lines = result_lines(fitted.plan, fitted.manifest, fitted.test)
    assert lines[1].startswith("main network  ")
    assert lines[2].startswith("cascade       ")
    assert lines[3].startswith("on 6 test pictures, with 95% intervals")
    assert lines[-2:] == [
        f"canonistia classify PHOTO --model {fitted.bundle}", f"canonistia serve --model {fitted.bundle}"
    ]  # fmt: skip


def test_a_plan_is_read_back_as_it_was_written(fitted: Fitted) -> None:
    assert read_plan(fitted.plan.runs) == fitted.plan
    kept = json.loads((fitted.plan.runs / "plan.json").read_text())
    assert kept["commands"] == fitted.plan.commands()


def test_the_commands_in_the_plan_are_those_that_were_done(fitted: Fitted, run: Run) -> None:
    for command in fitted.plan.commands()[:-1]:
        done = run(*shlex.split(command)[1:], "--resume")  # refused if a setting differs
        assert done.exit_code == 0, done.output
        assert "nothing to resume" in done.output


def test_a_log_gets_the_phases_and_nothing_else(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fit(FitRequest(photos, tmp_path / "mine"), LADDER)
    said = capfd.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].endswith("12 training and 12 validation pictures of 3 classes")
    assert [line.partition(" (")[0] for line in lines[1:4]] == [
        "chosen: tiny networks", lines[2], "more time would buy: nothing"
    ]  # fmt: skip
    assert [line.partition(" ")[0] for line in lines[4:7]] == ["intervals", "a", "accepted"]  # what is not promised
    assert [line.partition(": about")[0] for line in lines[7:]] == [
        "fit: 1 of 3, head of the main network", "fit: 2 of 3, submodels", "fit: 3 of 3, export"
    ]  # fmt: skip


def test_few_pictures_are_cross_fitted_and_the_plan_says_what_they_cannot_promise(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos", dict.fromkeys(CLASSES, 10), 0)
    made = fit(FitRequest(tmp_path / "photos", tmp_path / "mine"), LADDER)
    assert made.manifest.measured.pictures == 29  # two of the dots look alike
    assert "--cross-fit" in made.plan.commands()[-1]
    kept = json.loads((made.plan.runs / "plan.json").read_text())
    assert any("cannot be promised: 0 of 29 pictures may be marked" in limit for limit in kept["limits"])
    assert "95% intervals, which are wide" in "\n".join(result_lines(made.plan, made.manifest, None))


def fit_until(phase: int, delay: float, request: FitRequest) -> None:
    """Fit in this process, which is killed some seconds after a phase began."""
    honest = fit_command.PhaseDisplay.during

    def during(self: object, number: int) -> object:
        if number == phase:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, delay)
        return honest(self, number)  # type: ignore[arg-type]

    fit_command.PhaseDisplay.during = during  # type: ignore[assignment, method-assign]
    fit_command.Machine = steady  # type: ignore[assignment, misc]
    fit(request, LADDER)


@pytest.mark.parametrize("phase", range(4))
def test_after_a_kill_a_fit_goes_on_to_the_same_bundle(phase: int, fitted: Fitted, tmp_path: Path) -> None:
    request = request_like(fitted, tmp_path / "mine")
    process = FORKS.Process(target=fit_until, args=(phase, random.Random(phase).uniform(0.05, 1.5), request))
    process.start()
    process.join()
    process.close()
    again = fit(request, LADDER)
    assert content(again.bundle) == content(fitted.bundle)
    assert again.test == fitted.test
    assert not [path for path in tmp_path.iterdir() if path.name not in ("mine", "mine.runs")]


def test_a_kill_before_the_plan_leaves_nothing_that_counts(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_command, "write_plan", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(FitRequest(photos, tmp_path / "mine"), LADDER)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing_half_written_and_says_how_to_go_on(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("export.commands.export_bundle.check_parity", stop)
    request = request_like(fitted, tmp_path / "mine")
    with pytest.raises(CanonistiaError, match=r"interrupted in 'export'; .* continue .* --resume$"):
        fit(request, LADDER)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.runs"]
    monkeypatch.undo()
    assert content(fit(request, LADDER).bundle) == content(fitted.bundle)


def test_a_second_fit_into_the_same_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    with exclusive(tmp_path / "mine.runs"), pytest.raises(CanonistiaError, match="another process is writing"):
        fit(FitRequest(photos, tmp_path / "mine"), LADDER)


def test_an_earlier_fit_is_neither_lost_nor_resumed_by_accident(fitted: Fitted, photos: Path) -> None:
    same = FitRequest(photos, fitted.bundle, test=fitted.plan.test)
    with pytest.raises(CanonistiaError, match=r"mine.runs holds an earlier fit; .*--resume.*--overwrite"):
        fit(same, LADDER)
    for change in ({"minutes": 7.0}, {"test": None}, {"photos": photos.parent}):
        with pytest.raises(CanonistiaError, match="was begun with"):
            fit(replace(same, resume=True, **change), LADDER)  # type: ignore[arg-type]
    before = (fitted.bundle / "bundle.json").stat().st_mtime_ns
    assert fit(replace(same, resume=True), LADDER) == fitted
    assert (fitted.bundle / "bundle.json").stat().st_mtime_ns == before


def test_a_bundle_that_is_there_is_not_replaced(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "bundle.json").write_text("{}")
    with pytest.raises(CanonistiaError, match="exists; choose another --out"):
        fit(FitRequest(photos, tmp_path / "mine"), LADDER)
    assert (tmp_path / "mine" / "bundle.json").read_text() == "{}"


def test_the_command_and_python_ask_for_the_same(
    photos: Path, tmp_path: Path, fitted: Fitted, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FitRequest] = []

    def note(request: FitRequest) -> Fitted:
        asked.append(request)
        return fitted

    monkeypatch.setattr(fit_command, "fit", note)
    done = run("fit", photos, "--out", tmp_path / "mine", "--minutes", 5, "--test", photos, "--resume")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == f"canonistia serve --model {fitted.bundle}"
    assert canonistia.fit(str(photos), tmp_path / "mine", minutes=5, test=photos, resume=True) == fitted
    assert asked == [FitRequest(photos, tmp_path / "mine", 5, photos, resume=True)] * 2


def test_too_little_time_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(CanonistiaError, match="the smallest that works is --minutes"):
        fit(FitRequest(photos, tmp_path / "mine", minutes=0.1), LADDER)
    assert not list(tmp_path.iterdir())
