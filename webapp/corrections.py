"""Corrections: what visitors say that a picture really shows, kept as a manifest to train on."""

import csv
import hashlib
import io
import os
import secrets
import threading
from collections import OrderedDict
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from webapp.answers import Answer
from webapp.problems import Problem
from webapp.service import Served

MANIFEST = "corrections.csv"
_OFFERED = 200  # answered pictures that wait in memory for a correction


@dataclass(frozen=True)
class Correction:
    """A row of the manifest: the first three columns are what training reads, the others say what was answered."""

    path: str  # relative to the manifest
    label: str
    split: str
    label_1: str
    probability_1: float
    label_2: str
    probability_2: float
    stage: str
    unsure: bool
    doubt: float
    model: str
    corrected: str  # ISO 8601, UTC


@dataclass(frozen=True)
class _Offer:
    answer: Answer
    model: str
    classes: tuple[str, ...]


class Collector:
    """Keeps pictures whose class a visitor named, each once, by the hash of its content.

    What is kept is the preview that the visitor saw, encoded anew without any metadata.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._offers: OrderedDict[str, _Offer] = OrderedDict()
        folder.mkdir(parents=True, exist_ok=True)
        self._rows = {row.path: row for row in read_corrections(folder / MANIFEST)}

    def offer(self, answer: Answer, served: Served) -> str:
        """Hold an answered picture in memory for a while; return the token that :meth:`save` takes."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._offers[token] = _Offer(answer, served.name, served.engine.classes)
            while len(self._offers) > _OFFERED:
                self._offers.popitem(last=False)
        return token

    def save(self, token: str, label: str) -> None:
        """Store a picture under the class that it really shows.

        Raises
        ------
        Problem
            ``expired`` for a token that is not held any more, ``unknown_class``, or ``disk_full``; what was stored
            before stays as it was.
        """
        with self._lock:
            offer = self._offers.get(token)
            if offer is None:
                raise Problem("expired", "This picture is not held any more; send it again.")
            if label not in offer.classes:
                raise Problem("unknown_class", f"Choose one of {', '.join(offer.classes)}.")
            try:
                self._store(offer, label)
            except OSError as error:
                raise Problem("disk_full", f"The correction cannot be stored ({error.strerror}).") from error

    def _store(self, offer: _Offer, label: str) -> None:
        assert offer.answer.preview is not None
        encoded = io.BytesIO()
        offer.answer.preview.save(encoded, "PNG")
        data = encoded.getvalue()
        name = hashlib.sha256(data).hexdigest()
        path = f"pictures/{name[:2]}/{name}.png"
        if path not in self._rows:
            if self._size() + len(data) > self._max_bytes:
                raise Problem("disk_full", "The folder for corrections is full.")
            _write(self._folder / path, data)
        answer = offer.answer
        row = Correction(
            path=path,
            label=label,
            split="training",
            **asdict(answer.prediction),
            doubt=round(answer.doubt, 4),
            model=offer.model,
            corrected=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        rows = self._rows | {path: row}
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(field.name for field in fields(Correction))
        # The most doubtful first: who looks them through begins where the model knows least.
        writer.writerows(astuple(kept) for kept in sorted(rows.values(), key=lambda kept: -kept.doubt))
        _write(self._folder / MANIFEST, text.getvalue().encode())
        self._rows = rows

    def _size(self) -> int:
        return sum((self._folder / path).stat().st_size for path in self._rows)


def read_corrections(path: Path) -> list[Correction]:
    """Return the rows of a manifest; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return msgspec.convert(list(csv.DictReader(file)), list[Correction], strict=False)


def _write(path: Path, data: bytes) -> None:
    """Put a file in place whole, on the disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
