"""Bodies: how large that of a request may be, its inflating, and answers in an encoding that the client accepts."""

import io
import zlib
from typing import IO, cast

from flask import Flask, Response, g, request
from werkzeug.wsgi import get_content_length, get_input_stream

from webapp.problems import Problem
from webapp.requests.state import state
from webapp.settings import MB, Settings

TENSOR_HEADER = "Inference-Header-Content-Length"  # the bytes of JSON before the raw tensors of a request or an answer
RECEIVE = "canonistia.receive"  # in the environ of a call over gRPC: a function that receives its message

_INFLATERS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # coding to zlib's window bits, which choose the format
_CODINGS = ("gzip", "deflate")  # of answers; the first is preferred
_COMPRESSED_BLUEPRINTS = ("api", "infer", "documentation")
_LEAST_COMPRESSED = 1024  # bytes; a shorter answer fits into one packet anyway
_LEVEL = 1  # of zlib: answers are short, and the processor is for the models
_PIECE = 64 * 1024  # bytes read from the client at once
_LARGE_PIECE = MB
_PIXEL_BYTES = 3
_TENSOR_TEXT = 64 * 1024  # bytes of JSON before a raw tensor


def install(app: Flask, settings: Settings) -> None:
    """Inflate the bodies of an application's requests, and compress its answers to programs."""

    @app.before_request
    def prepare() -> None:
        if request.method == "POST":
            most = most_bytes(settings)
            # One more: Werkzeug ends a body of unknown length at its limit, without a word (see whole_body).
            request.max_content_length = most + 1
            _inflate(most)

    @app.after_request
    def compress(response: Response) -> Response:
        if response.status_code == 415 and _coding():
            response.headers["Accept-Encoding"] = ", ".join(_CODINGS)
        if request.blueprint in _COMPRESSED_BLUEPRINTS:
            _compress(response)
        return response


def most_bytes(settings: Settings) -> int:
    """Return how many bytes the current request's body may have, inflated; a raw tensor has a limit of its own."""
    if request.endpoint == "infer.run" and TENSOR_HEADER in request.headers:
        return most_tensor_bytes(settings)
    return settings.max_upload_bytes


def most_tensor_bytes(settings: Settings) -> int:
    """Return how many bytes a request with a raw tensor may have: those of the largest picture."""
    return max(settings.max_upload_bytes, _PIXEL_BYTES * settings.max_pixels + _TENSOR_TEXT)


def bytes_held(settings: Settings) -> int:
    """Return how many bytes the current request's body may take in memory."""
    length = request.content_length
    return most_bytes(settings) if length is None or _coding() else length


def whole_body() -> memoryview:
    """Return the body of the current request; a large one of known length is read without a copy of the whole.

    Raises
    ------
    Problem
        The body is too large, too slow, or cannot be inflated.
    """
    length = get_content_length(request.environ)  # None after inflating, unlike that of the request
    if length is None:
        data = request.get_data()
        if len(data) > most_bytes(state().settings):
            raise too_large(most_bytes(state().settings))
        return memoryview(data)
    stream = cast(io.RawIOBase, request.stream)
    body = memoryview(bytearray(length))
    filled = 0
    while count := stream.readinto(body[filled : filled + _LARGE_PIECE]):
        filled += count
    return body[:filled]


def received_message() -> bytes:
    """Return the message of the current call over gRPC, whose bytes count as those in progress from here on.

    Raises
    ------
    Problem
        ``not_found`` for a request that did not come over gRPC, ``slow_upload``, ``malformed`` or ``busy``.
    """
    receive = request.environ.get(RECEIVE)
    if receive is None:
        raise Problem("not_found", "This address is for calls over gRPC; see /api/docs for those over HTTP.")
    message: bytes = receive()
    hold(0, len(message))
    return message


def hold(pictures: int, size: int) -> None:
    """Admit pictures and bytes until the current request ends; Problem ``busy`` if they are too many."""
    state().admission.acquire(pictures, size)
    held = g.get("share", (0, 0))
    g.share = (held[0] + pictures, held[1] + size)


def too_large(most: int, how: str = "") -> Problem:
    """Return the problem of a body of more than ``most`` bytes."""
    return Problem(
        "upload_too_large", f"The {how}request is too large; at most {most // MB} MB are allowed; send less."
    )


class InflatedBody(io.RawIOBase):
    """The inflated body of a request, of at most ``most`` bytes; no more than a piece of it is held.

    Reading raises Problem ``upload_too_large`` after ``most`` bytes, and ``malformed`` where the data are damaged, end
    too early or go on after their end.
    """

    def __init__(self, body: IO[bytes], coding: str, most: int) -> None:
        self._body = body
        self._coding = coding
        self._most = most
        self._inflater = zlib.decompressobj(_INFLATERS[coding])
        self._waiting = b""  # read, and not inflated yet
        self._inflated = 0  # bytes

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Inflate into a buffer; return the number of bytes, 0 at the end."""
        while len(buffer) and not self._inflater.eof:
            ended = False
            if not self._waiting:
                self._waiting = self._body.read(_PIECE)
                ended = not self._waiting
            try:
                piece = self._inflater.decompress(self._waiting, len(buffer))
            except zlib.error as error:
                raise self._damaged("is damaged") from error
            self._waiting = self._inflater.unconsumed_tail
            if piece:
                return self._given(piece, buffer)
            if ended:
                raise self._damaged("ends too early")
        if len(buffer) and (self._inflater.unused_data or self._body.read(1)):
            raise self._damaged("goes on after its end")
        return 0

    def _given(self, piece: bytes, buffer: memoryview) -> int:
        self._inflated += len(piece)
        if self._inflated > self._most:
            raise too_large(self._most, "inflated ")
        buffer[: len(piece)] = piece
        return len(piece)

    def _damaged(self, how: str) -> Problem:
        return Problem("malformed", f"The body {how}; expected {self._coding} data; send it again.")


def _coding() -> str:
    """Return how the body of the current request is encoded; an empty text where it is not."""
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    return "" if coding == "identity" else coding


def _inflate(most: int) -> None:
    """Let the body of the current request be read inflated."""
    coding = _coding()
    if not coding:
        return
    if coding not in _INFLATERS:
        raise Problem("media_type", f"The body is encoded as {coding[:20]}; expected gzip, deflate, or no encoding.")
    if request.content_length == 0:
        return
    # What is left has no known length, and ends by itself.
    encoded = get_input_stream(request.environ, max_content_length=most)
    request.environ["wsgi.input"] = InflatedBody(encoded, coding, most)
    request.environ["wsgi.input_terminated"] = True
    request.environ.pop("CONTENT_LENGTH", None)


def _compress(response: Response) -> None:
    response.vary.add("Accept-Encoding")
    coding = request.accept_encodings.best_match((*_CODINGS, "identity"), "identity")
    if coding == "identity" or response.is_streamed or len(response.get_data()) < _LEAST_COMPRESSED:
        return
    response.set_data(zlib.compress(response.get_data(), _LEVEL, _INFLATERS[coding]))
    response.content_encoding = coding
