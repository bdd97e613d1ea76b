"""Stopping a batch at any moment and going on: no row lost, none twice."""

import csv
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cascade.errors import CanonistiaError
from cascade.images.decoding import decode
from cascade.inputs.item import Item
from cascade.outputs.journal import Journal, Terms, opened_journal
from cascade.outputs.rows import Answered, Row, journal_of
from tests.conftest import CLASSES, Run, draw

TERMS = Terms("0" * 64, by_hash=False)


def answered(name: str, stamp: str = "1:1", label: str = "sky", error: str | None = None) -> Answered:
    item = Item(name, 1, stamp, bytes)
    return Answered(
        item, Row(name, error=error) if error else Row(name, label, 0.1 + 0.2, "dots", 1 / 3, "main", False)
    )


def stopped(out: Path, *rows: Answered, terms: Terms = TERMS) -> None:
    """Leave a journal with rows as Ctrl-C would."""
    with suppress(KeyboardInterrupt), opened_journal(out, terms, resume=True) as journal:
        for row in rows:
            journal.add(row)
        raise KeyboardInterrupt


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of twelve pictures and a damaged one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        draw(CLASSES[number % 3], number).save(folder / f"{number:02d}.png")
    (folder / "05b.png").write_bytes(b"no picture")
    return folder


def test_rows_come_back_to_the_last_digit_and_names_need_not_be_text(tmp_path: Path) -> None:
    rows = [answered("b"), answered(os.fsdecode(b"caf\xe9")), answered("a", error="is empty")]
    with opened_journal(tmp_path / "o.csv", TERMS, resume=False) as journal:
        for row in rows:
            journal.add(row)
        assert list(journal.rows()) == [row.row for row in rows]
    assert list(tmp_path.iterdir()) == []


def test_a_file_given_twice_has_two_rows(tmp_path: Path) -> None:
    with opened_journal(tmp_path / "o.csv", TERMS, resume=False) as journal:
        for _ in range(2):
            journal.add(answered("a"))
        assert len(list(journal.rows())) == 2


def test_pictures_of_one_name_keep_their_own_rows(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    rows = [Row("t::1.jpg", label, 0.9, "sky", 0.1, "main", False) for label in ("rows", "dots", "rows", "sky")]
    for stamp in ("", "3:abc"):
        with suppress(KeyboardInterrupt), opened_journal(out, TERMS, resume=False) as journal:
            for row in rows:
                journal.add(Answered(Item(row.path, 3, stamp, bytes), row))
            assert list(journal.rows()) == rows
            raise KeyboardInterrupt
        with opened_journal(out, TERMS, resume=True) as journal:  # the same rows again: each is kept once
            for row in rows:
                journal.add(Answered(Item(row.path, 3, stamp, bytes), row))
            assert list(journal.rows()) == rows


def test_what_changed_and_what_failed_is_not_known(tmp_path: Path) -> None:
    stopped(tmp_path / "o.csv", answered("same"), answered("changed", "1:1"), answered("bad", error="x"))
    with opened_journal(tmp_path / "o.csv", TERMS, resume=True) as journal:
        assert journal.known(answered("same").item) == answered("same").row
        assert journal.known(answered("changed", "1:2").item) is None
        assert journal.known(answered("bad").item) is None
        assert journal.known(answered("new").item) is None
        assert list(journal.rows()) == []


def test_rows_are_found_by_name_where_the_stamp_is_not_known_yet(tmp_path: Path) -> None:
    stopped(tmp_path / "o.csv", answered("a", "1"), answered("a", "2", "dots"), answered("a", "", error="x"))
    with opened_journal(tmp_path / "o.csv", TERMS, resume=True) as journal:
        assert journal.known_by_stamp(answered("a").item) == {
            "1": answered("a").row,
            "2": answered("a", label="dots").row,
        }
        assert journal.known_by_stamp(answered("b").item) == {}


def test_another_bundle_is_refused_unless_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "o.csv"
    stopped(out, answered("a"))
    other = Terms("1" * 64, by_hash=False)
    with pytest.raises(CanonistiaError, match="started with another bundle"), opened_journal(out, other, resume=True):
        pass
    with pytest.raises(CanonistiaError, match="resume it without --hash"):
        opened_journal(out, Terms(TERMS.bundle, by_hash=True), resume=True).__enter__()
    with opened_journal(out, other, resume=True, any_bundle=True) as journal:
        assert journal.known(answered("a").item) is not None


def test_a_journal_of_other_columns_is_refused_in_a_sentence(tmp_path: Path) -> None:
    out = tmp_path / "o.csv"
    with sqlite3.connect(journal_of(out)) as database:  # as versions wrote it that knew neither both nor accepted
        database.executescript(
            "CREATE TABLE terms (bundle TEXT NOT NULL, by_hash INTEGER NOT NULL);"
            "CREATE TABLE kept (id INTEGER PRIMARY KEY, name BLOB NOT NULL, stamp TEXT NOT NULL, row TEXT NOT NULL);"
            "CREATE TABLE sequence (number INTEGER PRIMARY KEY, kept INTEGER NOT NULL);"
        )
        database.execute("INSERT INTO terms VALUES (?, 0)", (TERMS.bundle,))
    database.close()
    expected = (
        r"^\S+ was started by a canonistia whose rows have other columns; finish .*, or start again with --overwrite$"
    )
    for any_bundle in (False, True):
        with pytest.raises(CanonistiaError, match=expected):
            opened_journal(out, TERMS, resume=True, any_bundle=any_bundle).__enter__()
    with opened_journal(out, TERMS, resume=False) as journal:  # --overwrite
        journal.add(answered("a"))


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    with (
        opened_journal(tmp_path / "o.csv", TERMS, resume=False),
        pytest.raises(CanonistiaError, match="another run is writing"),
        opened_journal(tmp_path / "o.csv", TERMS, resume=True),
    ):
        pass


def test_a_journal_that_is_none_is_refused(tmp_path: Path) -> None:
    journal_of(tmp_path / "o.csv").write_bytes(b"something else" * 100)
    with (
        pytest.raises(CanonistiaError, match="start again with --overwrite"),
        opened_journal(tmp_path / "o.csv", TERMS, resume=True),
    ):
        pass


def test_a_full_disk_leaves_a_journal_that_goes_on(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk's end."""
    script = """
import resource, signal, sys, time
from pathlib import Path
from cascade.errors import CanonistiaError
from cascade.outputs.journal import opened_journal
from tests.cascade.test_journal import TERMS, answered
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    with opened_journal(Path(sys.argv[1]), TERMS, resume=False) as journal:
        for number in range(100_000):
            journal.add(answered(f"{number:06d}"))
            if number == 100:
                time.sleep(0.2)  # and the next row makes all so far durable
except CanonistiaError as error:
    print(error)
"""
    out = tmp_path / "o.csv"
    done = subprocess.run([sys.executable, "-c", script, str(out)], capture_output=True, text=True, check=True)
    assert "--resume" in done.stdout
    with opened_journal(out, TERMS, resume=True) as journal:
        assert journal.known(answered("000000").item) == answered("000000").row


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_output_that_exists_is_refused_and_replaced_when_asked(
    run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rows.csv"
    out.write_text("mine")
    words = ("classify", photos, "--model", tiny_bundle, "--out", out)
    refused = run(*words)
    assert refused.exit_code == 1
    assert "--overwrite" in refused.output
    assert out.read_text() == "mine"
    finished = run(*words, "--resume")
    assert finished.exit_code == 0
    assert "nothing to resume" in finished.output
    assert out.read_text() == "mine"
    assert run(*words, "--overwrite").exit_code == 3
    assert len(rows_of(out)) == 13
    assert run(*words, "--resume", "--overwrite").exit_code == 2


def test_changed_new_and_removed_files_are_seen(
    run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("classify", photos, "--model", tiny_bundle)
    run(*words, "--out", tmp_path / "whole.csv")
    whole = rows_of(tmp_path / "whole.csv")
    out = tmp_path / "rows.csv"
    interrupted(monkeypatch, after=9)
    assert run(*words, "--out", out).exit_code == 1
    assert not out.exists()
    assert "was started and stopped" in run(*words, "--out", out).output
    monkeypatch.undo()

    (photos / "01.png").unlink()
    draw("rows", 77).save(photos / "02.png")
    draw("dots", 78).save(photos / "02b.png")
    read = []
    monkeypatch.setattr("cascade.inputs.item.read_file", lambda path: read.append(path.name) or path.read_bytes())
    assert run(*words, "--out", out, "--resume").exit_code == 3
    assert {"02.png", "02b.png", "05b.png", "11.png"} <= set(read)
    assert not {"00.png", "03.png", "04.png"} & set(read)
    monkeypatch.undo()
    run(*words, "--out", tmp_path / "again.csv")
    assert rows_of(out) == rows_of(tmp_path / "again.csv")
    assert rows_of(out) != whole
    assert not journal_of(out).exists()


def test_with_hash_only_the_content_counts(
    run: Run, tiny_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("classify", photos, "--model", tiny_bundle, "--out", tmp_path / "rows.csv", "--hash")
    interrupted(monkeypatch, after=9)
    run(*words)
    monkeypatch.undo()
    same, changed = photos / "00.png", photos / "03.png"
    os.utime(same, (1, 1))
    before = changed.stat()
    content = bytearray(draw("rows", 91).tobytes())[: before.st_size].ljust(before.st_size, b"x")
    changed.write_bytes(content)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    decoded = []
    monkeypatch.setattr("cascade.images.view.decode", counting(decoded))
    run(*words, "--resume")
    assert same.read_bytes() not in decoded
    assert bytes(content) in decoded
    errors = {Path(row["path"]).name for row in rows_of(tmp_path / "rows.csv") if row["error"]}
    assert errors == {"03.png", "05b.png"}


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Have Ctrl-C arrive after so many rows."""
    add = Journal.add
    count = 0

    def until(self: Journal, row: Answered) -> None:
        nonlocal count
        if count == after:
            raise KeyboardInterrupt
        count += 1
        add(self, row)

    monkeypatch.setattr(Journal, "add", until)


def counting(seen: list[bytes]) -> Callable[..., object]:
    def decode_and_count(content: bytes, *limits: int) -> object:
        seen.append(content)
        return decode(content, *limits)

    return decode_and_count


def test_twenty_kills_end_with_the_rows_of_a_whole_run(tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    for number in range(13, 300):
        os.link(photos / f"{number % 12:02d}.png", photos / f"{number:03d}.png")
    out = tmp_path / "rows.csv"
    command = [sys.executable, "-m", "canonistia", "classify", str(photos), "--model", str(tiny_bundle)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def start(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, *words], stderr=subprocess.DEVNULL, env=environment)

    began = time.monotonic()
    assert start("--out", str(tmp_path / "whole.csv")).wait() == 3
    whole_seconds = time.monotonic() - began
    whole = (tmp_path / "whole.csv").read_bytes()
    chance = random.Random(5)
    kills = 0
    while kills < 20:
        process = start("--out", str(out), "--resume")
        try:
            process.wait(timeout=whole_seconds * chance.uniform(0.3, 1))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert out.read_bytes() == whole
        out.unlink()
    if not out.exists() or journal_of(out).exists():  # the last kill may fall between the two
        assert start("--out", str(out), "--resume").wait() == 3
    assert out.read_bytes() == whole
    assert not journal_of(out).exists()
