"""Uploads: the pictures of a request, from bytes to answers."""

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from flask import g, request
from PIL import Image

from cascade.picture import Source
from cascade.view import see
from webapp.answers import PREVIEW_SIDE, Answer, Refused, answer_of
from webapp.batcher import Outcome
from webapp.connection import wait_for
from webapp.problems import Problem, picture_problems
from webapp.service import Served
from webapp.state import state

FIELDS = ("pictures", "file")


@dataclass(frozen=True)
class _Waiting:
    name: str
    preview: Image.Image | None
    answer: "Future[Outcome]"


def classify_uploads(served: Served, explain: bool = False) -> list[Answer | Refused]:
    """Return an answer for each picture of the current request, in order; a bad one does not stop the others.

    Parameters
    ----------
    served
        The bundle that answers.
    explain
        Whether to make previews and activation maps.

    Raises
    ------
    Problem
        The request as a whole is refused: nothing was sent, too much, or the service is full.
    """
    files = [upload for field in FIELDS for upload in request.files.getlist(field) if upload.filename]
    if not files:
        raise Problem("no_picture", "No picture was sent; choose at least one.")
    return classify_sources(served, [(str(upload.filename), upload.read()) for upload in files], explain)


def classify_sources(
    served: Served, sources: Sequence[tuple[str, Source]], explain: bool = False
) -> list[Answer | Refused]:
    """Return an answer for each named picture, in order (see :func:`classify_uploads`)."""
    settings = state().settings
    if len(sources) > settings.max_pictures:
        raise Problem(
            "too_many_pictures", f"{len(sources)} pictures were sent; at most {settings.max_pictures} go at once."
        )
    until = time.monotonic() + settings.deadline_seconds
    with _places(len(sources) - 1):  # the request itself holds the first
        waiting: list[_Waiting | Refused] = []
        try:
            for name, source in sources:
                try:
                    waiting.append(_submit(served, name, source, explain))
                except Problem as problem:
                    waiting.append(Refused(name, problem))
            answers = [item if isinstance(item, Refused) else _finished(item, until) for item in waiting]
        finally:
            for item in waiting:
                if isinstance(item, _Waiting):
                    item.answer.cancel()
    _count(served, answers)
    return answers


@contextmanager
def _places(count: int) -> Iterator[None]:
    admission = state().admission
    admission.take(count)
    try:
        yield
    finally:
        admission.give_back(count)


def _submit(served: Served, name: str, source: Source, explain: bool) -> _Waiting:
    parts = state()
    with served.batcher.coming():
        with parts.decoders, parts.metrics.decode.time():
            with picture_problems():
                view = see(source, served.engine.specs, parts.settings.max_pixels)
            preview = view.thumbnail(PREVIEW_SIDE) if explain else None
            view.prepare(served.manifest.main.preprocess, served.engine.specs)
        return _Waiting(name, preview, served.batcher.submit(view, maps=explain))


def _finished(waiting: _Waiting, until: float) -> Answer:
    return answer_of(waiting.name, wait_for(waiting.answer, until), waiting.preview)


def _count(served: Served, answers: Sequence[Answer | Refused]) -> None:
    metrics = state().metrics
    g.model, g.pictures = served.name, len(answers)  # for the log
    for answer in answers:
        if isinstance(answer, Refused):
            metrics.errors.labels(answer.problem.kind).inc()
        else:
            metrics.pictures.labels(served.name, answer.prediction.stage).inc()
            if answer.prediction.unsure:
                metrics.unsure.labels(served.name).inc()


def stored_in_memory(*_: object, **__: object) -> io.BytesIO:
    """Return where a part of a form is kept: pictures never touch the disk."""
    return io.BytesIO()
