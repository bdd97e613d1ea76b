"""Uploads: the pictures of a request, from bytes to answers."""

import io
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from flask import g, request
from PIL import Image

from cascade.images.decoding import DecodingCost, Source, decoding_cost
from cascade.images.preprocess import PreprocessSpec, least_size
from cascade.images.view import see
from webapp.problems import Problem, picture_problems
from webapp.requests.answers import PREVIEW_SIZE, Answer, Refused
from webapp.requests.connection import check_client_waits, client_address, wait_for
from webapp.requests.state import state
from webapp.serving.batcher import Outcome
from webapp.serving.service import Served

FIELDS = ("pictures", "file", "files", "image")  # the page's, and those that programs use
_ARRAY_BYTES = 4  # per pixel of Pillow's copy of an array


@dataclass(frozen=True)
class Illustration:
    """What is made of a picture besides its answer: a small picture to show, and the maps of its two classes."""

    preview: bool = False
    maps: bool = False


_NONE = Illustration()


@dataclass(frozen=True)
class _Pending:
    name: str
    preview: Image.Image | None
    outcome: "Future[Outcome]"


def sent_files() -> list[tuple[str, Source]]:
    """Return the files of the current request's form, each with its name.

    Raises
    ------
    Problem
        The form holds no file, or one in a field that is not known, or did not arrive completely.
    """
    for field, upload in request.files.items(multi=True):
        if upload.filename and field not in FIELDS:
            named = (field or "")[:40]  # a part may have no name at all
            raise Problem(
                "malformed",
                f"The form has a file in the field '{named}'; expected {', '.join(FIELDS[1:])}; name it so.",
            )
    files = [upload for field in FIELDS for upload in request.files.getlist(field) if upload.filename]
    if not files:
        raise Problem("no_picture", "No picture was sent; choose at least one.")
    return [(str(upload.filename), upload.read()) for upload in files]


def check_count(pictures: int) -> None:
    """Raise Problem ``too_many_pictures`` if a request may not hold this many."""
    allowed = state().settings.max_pictures
    if pictures > allowed:
        raise Problem("too_many_pictures", f"{pictures} pictures were sent; at most {allowed} are allowed; send fewer.")


def classify_sources(
    served: Served, sources: Sequence[tuple[str, Source]], illustration: Illustration = _NONE
) -> list[Answer | Refused]:
    """Return an answer for each named picture, in order; a bad picture does not stop the others.

    Parameters
    ----------
    served
        The bundle that answers.
    sources
        Names, and the bytes of files or uint8 arrays (H, W, 3).
    illustration
        Whether to make previews and activation maps.

    Raises
    ------
    Problem
        The whole request is refused: too many pictures, the deadline has passed, or the service is full.
    ClientLeftError
        The client hung up.
    """
    g.model = served.name  # for the log and the metrics
    with served.batcher.statistics.request():
        return _answers(served, sources, illustration)


def _answers(
    served: Served, sources: Sequence[tuple[str, Source]], illustration: Illustration
) -> list[Answer | Refused]:
    check_count(len(sources))
    deadline = time.monotonic() + state().settings.deadline_seconds
    with _admitted(len(sources) - 1):  # the request itself holds the first place
        started: list[_Pending | Refused] = []
        try:
            for name, source in sources:
                check_client_waits(deadline)
                started.append(_submit(served, name, source, illustration, len(sources) == 1, deadline))
            answers = [item if isinstance(item, Refused) else _finished(item, deadline) for item in started]
        finally:
            for item in started:
                if isinstance(item, _Pending):
                    item.outcome.cancel()
    _count(served, answers)
    return answers


@contextmanager
def _admitted(pictures: int) -> Iterator[None]:
    admission = state().admission
    admission.acquire(pictures)
    try:
        yield
    finally:
        admission.release(pictures)


def _submit(
    served: Served, name: str, source: Source, illustration: Illustration, alone: bool, deadline: float
) -> _Pending | Refused:
    current = state()
    specs = served.engine.specs
    cost = _cost(source, specs)
    with ExitStack() as reserved:
        with current.decoding.turn(cost, client_address(), deadline), _timed_decoding(served):
            check_client_waits(deadline)
            reservation = reserved.enter_context(served.batcher.reserve())
            try:
                with picture_problems():
                    view = see(source, specs, current.settings.max_pixels)
            except Problem as problem:
                return Refused(name, problem)
            preview = view.preview(PREVIEW_SIZE) if illustration.preview else None
            view.prepare(served.manifest.main.preprocess, specs)
        check_client_waits(deadline)
        return _Pending(name, preview, reservation.submit(view, maps=illustration.maps, inline=alone))


@contextmanager
def _timed_decoding(served: Served) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        seconds = time.monotonic() - started
        state().metrics.decode.observe(seconds)
        served.batcher.statistics.add_decoding(seconds)


def _cost(source: Source, specs: Iterable[PreprocessSpec]) -> DecodingCost:
    if isinstance(source, np.ndarray):
        pixels = source.shape[0] * source.shape[1]
        return DecodingCost(_ARRAY_BYTES * pixels, pixels)
    if not isinstance(source, bytes):
        return DecodingCost(0, 0)  # a picture of Pillow's is decoded already
    sizes = {least_size(spec) for spec in specs}
    costs = [decoding_cost(source, state().settings.max_pixels, size) for size in sizes]  # all decoded copies are kept
    return DecodingCost(sum(cost.memory for cost in costs), sum(cost.pixels for cost in costs))


def _finished(pending: _Pending, deadline: float) -> Answer:
    return Answer(pending.name, wait_for(pending.outcome, deadline), pending.preview)


def _count(served: Served, answers: Sequence[Answer | Refused]) -> None:
    metrics = state().metrics
    g.pictures = len(answers)  # for the log
    for answer in answers:
        if isinstance(answer, Refused):
            metrics.errors.labels(answer.problem.kind).inc()
            answer.problem.counted = True
        else:
            metrics.pictures.labels(served.name, answer.prediction.stage).inc()
            if answer.prediction.unsure:
                metrics.unsure.labels(served.name).inc()


def stored_in_memory(*_: object, **__: object) -> io.BytesIO:
    """Return the file that holds a part of a form: pictures never touch the disk."""
    return io.BytesIO()
