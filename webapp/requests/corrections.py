"""Corrections: the true classes that visitors enter, stored as a manifest for training."""

import csv
import hashlib
import io
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cascade.errors import CanonistiaError
from cascade.files import write_once, written_whole
from cascade.inference.prediction import Prediction
from cascade.locks import exclusive
from webapp.problems import Problem
from webapp.serving.held import Held

if TYPE_CHECKING:  # the runtime is imported in the worker alone
    from webapp.requests.answers import Answer
    from webapp.serving.service import Served

MANIFEST = "corrections.csv"
_ENTRIES = "entries"  # the folder of the corrections as files
_ENTRY_AGE = timedelta(hours=1)  # how long such a file stays at least
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600  # pictures of visitors, for nobody but the operator


@dataclass(frozen=True)
class Correction:
    """A row of the manifest: training reads the first three columns; the others hold the answer that was given."""

    path: str  # relative to the manifest
    label: str
    split: str
    label_1: str = ""
    probability_1: float = 0.0
    label_2: str = ""
    probability_2: float = 0.0
    stage: str = ""
    unsure: bool = False
    both: bool = False
    accepted: bool = False  # also where the bundle promises nothing
    doubt: float = 0.0
    model: str = ""
    corrected: str = ""  # ISO 8601, UTC, such as 2026-01-31T12:00:00.000000+00:00: later ones sort after earlier ones


@dataclass(frozen=True)
class _Offer:
    picture: bytes  # a PNG
    prediction: Prediction
    doubt: float
    model: str
    classes: tuple[str, ...]


class Collector:
    """Stores pictures that a visitor corrected, each once, named by the hash of its content.

    The stored picture is the preview that the visitor saw, encoded again without metadata. The operator may change
    rows, and delete pictures with their rows, at any time. ``held`` keeps what may still be corrected.

    Several services, of several machines too, may collect into one folder. Each correction is first a file of its own,
    made exclusively under the hash of its content. Whoever stores the next one gathers them into the manifest. Where
    the folder has no locks, one may replace a manifest that another has just written: the file of a correction stays
    for a while after it was gathered, and the next gathering finds it.

    Raises
    ------
    CanonistiaError
        See :func:`prepare_folder`.
    """

    def __init__(self, folder: Path, max_bytes: int, held: Held | None = None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held = held or Held()
        prepare_folder(folder)

    def offer(self, answer: "Answer", served: "Served") -> str:
        """Keep an answered picture in memory for up to an hour; return its token for :meth:`save`."""
        assert answer.preview is not None
        encoded = io.BytesIO()
        answer.preview.save(encoded, "PNG", compress_level=1)
        offer = _Offer(
            picture=encoded.getvalue(),
            prediction=answer.prediction,
            doubt=answer.outcome.doubt,
            model=served.name,
            classes=served.engine.classes,
        )
        return self._held.put(msgspec.msgpack.encode(offer))

    def save(self, token: str, label: str) -> None:
        """Store a picture under its true class.

        Raises
        ------
        Problem
            ``expired`` for a token that is no longer kept, ``unknown_class``, or ``disk_full``; corrections stored
            before stay unchanged.
        """
        held = self._held.get(token)
        if held is None:
            raise Problem("expired", "This picture is no longer kept; send it again.")
        offer = msgspec.msgpack.decode(held, type=_Offer)
        if label not in offer.classes:
            raise Problem("unknown_class", f"The model has no such class; choose one of {', '.join(offer.classes)}.")
        with self._lock:
            try:
                self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
                with exclusive(self._folder / MANIFEST, wait=True):  # other services may collect into the same folder
                    self._store(offer, label)
            except OSError as error:
                raise Problem("disk_full", f"The correction cannot be stored ({error.strerror}).") from error
            except CanonistiaError as error:
                raise Problem(
                    "disk_full", "The correction cannot be stored: the folder or its manifest is damaged."
                ) from error

    def _store(self, offer: _Offer, label: str) -> None:
        name = _hash(offer.picture)
        path = f"pictures/{name[:2]}/{name}.png"
        rows = {row.path: row for row in read_corrections(self._folder / MANIFEST)}
        if not (self._folder / path).exists() and self._size(rows) + len(offer.picture) > self._max_bytes:
            raise Problem("disk_full", "The folder for corrections is full.")
        correction = Correction(
            path=path,
            label=label,
            split="training",
            **asdict(offer.prediction) | {"accepted": bool(offer.prediction.accepted)},
            doubt=round(offer.doubt, 4),
            model=offer.model,
            corrected=_time(datetime.now(UTC)),
        )
        entry = msgspec.json.encode(correction)
        made: list[Path] = []
        try:
            for file, content in ((path, offer.picture), (f"{_ENTRIES}/{_hash(entry)}.json", entry)):
                _make_folders(self._folder / file)
                if write_once(self._folder / file, content, _FILE_MODE):
                    made.append(self._folder / file)
            self._gather(rows)
        except (OSError, CanonistiaError):
            for written in made:
                written.unlink(missing_ok=True)
            raise

    def _gather(self, rows: dict[str, Correction]) -> None:
        """Write the manifest of the rows that it had and of the entries, of each picture the latest word."""
        old, expired = dict(rows), _time(datetime.now(UTC) - _ENTRY_AGE)
        entries = self._entries()
        for entry in entries.values():
            row = rows.get(entry.path)
            if (row is None or entry.corrected > row.corrected) and (self._folder / entry.path).exists():
                rows[entry.path] = entry
        if rows != old:
            text = io.StringIO()
            writer = csv.writer(text)
            writer.writerow(field.name for field in fields(Correction))
            # The most doubtful first: a person who reviews them starts where the model is least sure.
            writer.writerows(astuple(kept) for kept in sorted(rows.values(), key=lambda kept: -kept.doubt))
            with written_whole(self._folder / MANIFEST) as partial:
                partial.touch(mode=_FILE_MODE)
                partial.write_bytes(text.getvalue().encode())
        for file, entry in entries.items():
            # Only what the manifest had before this call: it was there to be seen by every other service.
            known = old.get(entry.path)
            if entry.corrected < expired and known == rows.get(entry.path):
                file.unlink(missing_ok=True)

    def _entries(self) -> dict[Path, Correction]:
        found = {}
        for file in sorted((self._folder / _ENTRIES).glob("[!.]*.json")):
            try:
                with suppress(FileNotFoundError):  # another service has removed it
                    found[file] = msgspec.json.decode(file.read_bytes(), type=Correction)
            except msgspec.DecodeError as error:
                raise CanonistiaError(
                    f"{file} cannot be read ({error}); expected a correction as the service writes it; delete it"
                ) from error
        return found

    def _size(self, paths: Iterable[str]) -> int:
        kept = (self._folder / path for path in paths)
        return sum(path.stat().st_size for path in kept if path.exists())


def prepare_folder(folder: Path) -> None:
    """Make a folder for corrections, and check what is in it.

    Raises
    ------
    CanonistiaError
        The folder cannot be created, or holds a manifest that cannot be read.
    """
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise CanonistiaError(f"{folder} cannot be created ({error.strerror}); choose another --collect") from error
    read_corrections(folder / MANIFEST)


def read_corrections(path: Path) -> list[Correction]:
    """Return the rows of a manifest; an empty list if there is no file.

    Raises
    ------
    CanonistiaError
        The file exists and cannot be read.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return msgspec.convert(list(csv.DictReader(file)), list[Correction], strict=False)
    except (OSError, UnicodeDecodeError, csv.Error, msgspec.ValidationError) as error:
        raise CanonistiaError(
            f"{path} cannot be read ({error}); expected the columns path, label and split, and those that the service "
            "writes; correct the file, or choose another --collect"
        ) from error


def _make_folders(path: Path) -> None:
    for folder in reversed(path.parents):  # one by one: mkdir makes the parents of a folder for everyone
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
