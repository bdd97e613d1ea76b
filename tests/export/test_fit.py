"""From photos to a bundle in one command: the plan is kept, resumed, and never half-done."""

import json
import shlex
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


def test_a_kill_before_the_plan_leaves_nothing_that_counts(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_command, "write_plan", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(FitRequest(photos, tmp_path / "mine"), LADDER)
    assert not list(tmp_path.iterdir())


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
