"""The journal: keeps the rows on disk while a batch runs, so that a run stopped at any moment can be resumed."""

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import CanonistiaError
from cascade.inputs.item import Item
from cascade.outputs.rows import COLUMNS, Answered, Row, journal_of

# One row is kept per content of a file; the sequence is the order of this run.
_TABLES = """
CREATE TABLE terms (bundle TEXT NOT NULL, by_hash INTEGER NOT NULL, columns TEXT NOT NULL);
CREATE TABLE kept (id INTEGER PRIMARY KEY, name BLOB NOT NULL, stamp TEXT NOT NULL, row TEXT NOT NULL);
CREATE INDEX kept_by_name ON kept (name, stamp);
CREATE TABLE sequence (number INTEGER PRIMARY KEY, kept INTEGER NOT NULL);
"""
_ANSWER = COLUMNS[1:]
_COLUMNS = ",".join(COLUMNS)
_LEAST_SECONDS = 0.1
_SHARE = 0.05  # of the time that may be spent on making rows durable


@dataclass(frozen=True)
class Terms:
    """What the rows of a journal depend on: the sha256 of the bundle, and how a changed file is detected."""

    bundle: str
    by_hash: bool


class Journal:
    """The rows of one run, in a database beside the output.

    Every row is durable within about a second after it was added: a process that is killed loses only later rows, and
    the database is consistent at any moment.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._number = 0
        self._last = time.monotonic()
        self._cost = 0.0

    def known(self, item: Item) -> Row | None:
        """Return the row of the same file in an earlier run, if the file could be read and has not changed."""
        if not item.stamp:
            return None
        found = self._database.execute(
            "SELECT row FROM kept WHERE name = ? AND stamp = ? ORDER BY id DESC LIMIT 1",
            (os.fsencode(item.name), item.stamp),
        ).fetchone()
        row = _row(item.name, found[0]) if found else None
        return None if row is None or row.error else row

    def known_by_stamp(self, item: Item) -> dict[str, Row]:
        """Return the rows of files with this name in earlier runs, by their stamps, without those with errors."""
        query = "SELECT stamp, row FROM kept WHERE name = ? AND stamp != ''"
        found = self._database.execute(query, (os.fsencode(item.name),)).fetchall()
        rows = {stamp: _row(item.name, row) for stamp, row in found}
        return {stamp: row for stamp, row in rows.items() if not row.error}

    def add(self, answered: Answered) -> None:
        """Add the next row."""
        item = answered.item
        name = os.fsencode(item.name)
        row = answered.row
        answer = json.dumps([getattr(row, column) for column in _ANSWER])  # astuple would copy every value deeply
        self._database.execute(
            "INSERT INTO sequence VALUES (?, ?)", (self._number, self._kept(name, item.stamp, answer))
        )
        self._number += 1
        now = time.monotonic()
        if now - self._last >= max(_LEAST_SECONDS, self._cost / _SHARE):
            self._database.commit()
            self._last = time.monotonic()
            self._cost = self._last - now

    def _kept(self, name: bytes, stamp: str, answer: str) -> int:
        """Return the id of a row, which is kept once: pictures with one name and stamp may have rows that differ."""
        same = "SELECT id FROM kept WHERE name = ? AND stamp = ? AND row = ?"
        found = self._database.execute(same, (name, stamp, answer)).fetchone()
        if found:
            return int(found[0])
        added = self._database.execute("INSERT INTO kept (name, stamp, row) VALUES (?, ?, ?)", (name, stamp, answer))
        assert added.lastrowid is not None
        return added.lastrowid

    def rows(self) -> Iterator[Row]:
        """Yield the rows of this run in order."""
        self._database.commit()
        query = "SELECT name, row FROM sequence JOIN kept ON kept = id ORDER BY number"
        for name, answer in self._database.execute(query):
            yield _row(os.fsdecode(name), answer)


@contextmanager
def opened_journal(out: Path, terms: Terms, resume: bool, any_bundle: bool = False) -> Iterator[Journal]:
    """Yield the journal of an output, emptied unless ``resume``; it is removed when the block ends without an error.

    The caller holds the lock of the output (:func:`cascade.locks.exclusive`).

    Raises
    ------
    CanonistiaError
        The journal was started with another bundle (unless ``any_bundle``), another ``by_hash`` or other columns, or it
        cannot be written. The journal then keeps its rows.
    """
    path = journal_of(out)
    if not resume:
        _remove(path)
    try:
        database = sqlite3.connect(path, isolation_level="IMMEDIATE", timeout=0.2, check_same_thread=False)
        try:
            # No other run of the same output can open the journal meanwhile.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            _start(database, terms, out, any_bundle)
            yield Journal(database)
        except BaseException:
            database.commit()
            raise
        finally:
            database.close()
        _remove(path)
    except sqlite3.Error as error:
        raise CanonistiaError(_reason(error, out)) from error


def _start(database: sqlite3.Connection, terms: Terms, out: Path, any_bundle: bool) -> None:
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'terms'").fetchone():
        database.executescript(f"BEGIN EXCLUSIVE; {_TABLES} COMMIT;")
    started = database.execute("SELECT * FROM terms").fetchone()
    if started:
        if started[2:] != (_COLUMNS,):
            raise CanonistiaError(
                f"{out} was started by a canonistia whose rows have other columns; finish it with that one, or start "
                "again with --overwrite"
            )
        if started[0] != terms.bundle and not any_bundle:
            raise CanonistiaError(
                f"{out} was started with another bundle ({started[0][:12]}, now {terms.bundle[:12]}); give that one to "
                "--model, mix both with --allow-other-model, or start again with --overwrite"
            )
        if bool(started[1]) != terms.by_hash:
            way = "with --hash" if started[1] else "without --hash"
            raise CanonistiaError(f"{out} was started {way}; resume it {way}, or start again with --overwrite")
    with database:
        database.execute("DELETE FROM terms")
        database.execute("INSERT INTO terms VALUES (?, ?, ?)", (terms.bundle, terms.by_hash, _COLUMNS))
        database.execute("DELETE FROM sequence")


def _remove(path: Path) -> None:
    # The database's own journal first: it would undo changes when the database is next opened.
    path.with_name(path.name + "-journal").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _row(name: str, answer: str) -> Row:
    return Row(name, *json.loads(answer))


def _reason(error: sqlite3.Error, out: Path) -> str:
    if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
        return f"another run is writing {out}; wait until it has finished, or choose another --out"
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return f"{out} cannot be written, the disk is full; free some space and run again with --resume"
    if error.sqlite_errorcode in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return f"{out} cannot be written ({error}); choose another --out"
    return f"the journal of {out} cannot be used ({error}); run again with --resume, or start again with --overwrite"
