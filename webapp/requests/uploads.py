"""Uploads: the pictures of a request, from bytes to answers."""

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from flask import g, request
from PIL import Image

from cascade.images.decoding import Source, decoding_cost
from cascade.images.view import see
from webapp.problems import Problem, picture_problems
from webapp.requests.answers import PREVIEW_SIDE, Answer, Refused, answer_of
from webapp.requests.connection import check_wanted, wait_for
from webapp.requests.state import state
from webapp.serving.batcher import Outcome
from webapp.serving.service import Served

FIELDS = ("pictures", "file")


@dataclass(frozen=True)
class _Waiting:
    name: str
    preview: Image.Image | None
    answer: "Future[Outcome]"


def sent_files() -> list[tuple[str, Source]]:
    """Return the files of the current request's form, each with its name.

    Raises
    ------
    Problem
        Nothing was sent, or it did not arrive whole.
    """
    files = [upload for field in FIELDS for upload in request.files.getlist(field) if upload.filename]
    if not files:
        raise Problem("no_picture", "No picture was sent; choose at least one.")
    return [(str(upload.filename), upload.read()) for upload in files]


def classify_sources(
    served: Served, sources: Sequence[tuple[str, Source]], explain: bool = False
) -> list[Answer | Refused]:
    """Return an answer for each named picture, in order; a bad one does not stop the others.

    Parameters
    ----------
    served
        The bundle that answers.
    sources
        Names, and the bytes of files or uint8 arrays (H, W, 3).
    explain
        Whether to make previews and activation maps.

    Raises
    ------
    Problem
        The request as a whole is refused: too many pictures, no time left, or the service is full.
    ClientLeftError
        Nobody waits for the answers any more.
    """
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
                check_wanted(until)
                waiting.append(_submit(served, name, source, explain, len(sources) == 1, until))
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


def _submit(served: Served, name: str, source: Source, explain: bool, only: bool, until: float) -> _Waiting | Refused:
    parts = state()
    pixels = decoding_cost(source) if isinstance(source, bytes) else 0  # an array is decoded already
    specs = served.engine.specs
    with served.batcher.coming() as coming:
        with parts.decoding.share(pixels, until), parts.metrics.decode.time():
            try:
                with picture_problems():
                    view = see(source, specs, parts.settings.max_pixels)
            except Problem as problem:
                return Refused(name, problem)
            preview = view.preview(PREVIEW_SIDE) if explain else None
            view.prepare(served.manifest.main.preprocess, specs)
        check_wanted(until)
        return _Waiting(name, preview, coming.submit(view, maps=explain, here=only))


def _finished(waiting: _Waiting, until: float) -> Answer:
    return answer_of(waiting.name, wait_for(waiting.answer, until), waiting.preview)


def _count(served: Served, answers: Sequence[Answer | Refused]) -> None:
    metrics = state().metrics
    g.model, g.pictures = served.name, len(answers)  # for the log
    for answer in answers:
        if isinstance(answer, Refused):
            metrics.errors.labels(answer.problem.kind).inc()
            answer.problem.counted = True
        else:
            metrics.pictures.labels(served.name, answer.prediction.stage).inc()
            if answer.prediction.unsure:
                metrics.unsure.labels(served.name).inc()


def stored_in_memory(*_: object, **__: object) -> io.BytesIO:
    """Return where a part of a form is kept: pictures never touch the disk."""
    return io.BytesIO()
