"""What long work says where no terminal watches it."""

import io
import re
from pathlib import Path

import pytest

import cascade.progress
from cascade.inputs.sources import picture_count
from cascade.progress import (
    CountedAside,
    Phase,
    PhaseDisplay,
    line_per_minute,
    progress_line,
    steps_shown,
    track,
)
from tests.conftest import write_class_folders
from tests.waiting import wait_until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock of one number that the test sets."""
    now = [0.0]
    monkeypatch.setattr("cascade.progress.time.monotonic", lambda: now[0])
    return now


def test_a_line_is_written_per_minute_with_the_rate_of_that_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in line_per_minute(range(400), "copying", 400, unit="files"):
        clock[0] += 1 if clock[0] < 120 else 0.5
    assert capsys.readouterr().err.splitlines() == [
        "copying: 60 of 400 files, 1.0 per second, 0:05:40 left",
        "copying: 120 of 400 files, 1.0 per second, 0:04:40 left",
        "copying: 240 of 400 files, 2.0 per second, 0:01:20 left",
        "copying: 360 of 400 files, 2.0 per second, 0:00:20 left",
    ]


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(line_per_minute("abc", "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_line_without_a_total_has_no_time_left() -> None:
    assert progress_line("classify", "pictures", 1200, None, 20) == "classify: 1,200 pictures, 20.0 per second"


def test_a_number_is_counted_aside() -> None:
    counted = CountedAside(lambda: 7)
    wait_until(lambda: counted() == 7)


def test_trainings_write_the_same_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cascade.progress, "EVERY", 0.0)
    assert len(list(track(["a", "b"], "reading"))) == 2
    assert len(list(steps_shown([("ab",), ("cd",)], "epoch 1 of 2", 1, 3))) == 2
    said = [line.partition(", ")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "reading: 1 of 2 steps", "reading: 2 of 2 steps", "epoch 1 of 2: 2 of 3 batches", "epoch 1 of 2: 3 of 3 batches"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "count"),
    [
        (("{}",), 4),
        (("{}/sky", "{}/rows/000.png"), 3),
        (("{}/*/000.png",), 2),
        (("@{}/list.txt",), 3),
        (("{}", "-"), None),
        (("{}/more.zip",), None),
        (("s3://bucket",), None),
    ],
)
def test_pictures_are_counted_without_opening_anything(
    tmp_path: Path, inputs: tuple[str, ...], count: int | None
) -> None:
    write_class_folders(tmp_path, {"sky": 2, "rows": 2}, 0)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/sky\n{tmp_path}/rows/001.png\n")
    (tmp_path / "more.zip").write_bytes(b"no archive")
    assert picture_count([name.format(tmp_path) for name in inputs]) == count


PHASES = (Phase("head", 120), Phase("export", 30))


def test_a_log_gets_a_line_per_phase_and_per_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade.progress, "EVERY", 0.05)
    log = io.StringIO()
    display = PhaseDisplay("fit", PHASES, log)
    with display.during(0):
        wait_until(lambda: len(log.getvalue().splitlines()) >= 3)
    count = len(log.getvalue().splitlines())
    with display.during(1):
        pass
    lines = log.getvalue().splitlines()
    assert lines[0] == "fit: 1 of 2, head: about 0:02:30 left in all"
    assert lines[1].startswith("fit: 1 of 2, head: ")
    assert lines[count:] == ["fit: 2 of 2, export: about 0:00:30 left in all"]


def test_the_time_left_counts_the_phases_to_come_and_is_never_negative() -> None:
    display = PhaseDisplay("fit", PHASES, io.StringIO())
    assert display.line(0, 60) == "fit: 1 of 2, head: 0:01:00 so far, about 0:01:30 left in all"
    assert display.line(1, 60) == "fit: 2 of 2, export: 0:01:00 so far, about 0:00:00 left in all"


def test_a_terminal_sees_a_live_display_and_keeps_a_line_per_phase() -> None:
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    with PhaseDisplay("fit", PHASES, terminal).during(0):
        wait_until(lambda: "1 of 2, head" in terminal.getvalue())
    assert re.search(r"fit: 1 of 2, head: done in 0:00:0\d\n$", terminal.getvalue())
