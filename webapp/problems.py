"""Problems: why a request, or one picture of it, is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.exceptions import HTTPException, SecurityError

from cascade.errors import PictureError, TooManyPixelsError, UnknownFormatError

# Kind to HTTP status. The kind names the problem in metrics, in the API's "type" and in the page's translations.
STATUS = {
    "no_picture": 400,
    "malformed": 400,
    "tensor": 400,
    "host": 400,
    "key": 401,
    "cross_site": 403,
    "no_model": 404,
    "not_found": 404,
    "method": 405,
    "slow_upload": 408,
    "expired": 410,
    "too_many_pictures": 413,
    "upload_too_large": 413,
    "picture_too_large": 413,
    "format": 415,
    "media_type": 415,
    "damaged": 422,
    "unknown_class": 422,
    "rate": 429,
    "internal": 500,
    "busy": 503,
    "loading": 503,
    "deadline": 504,
    "disk_full": 507,
}

_OF_STATUS = {
    400: "malformed",
    404: "not_found",
    405: "method",
    413: "upload_too_large",
    415: "media_type",
    429: "rate",
}


_SENTENCES = {
    "malformed": "The request cannot be understood.",
    "not_found": "There is nothing at this address.",
    "method": "This address does not take that method.",
    "upload_too_large": "That is too much at once: too many bytes, or too many parts of a form.",
    "media_type": "The body is not of a kind that is taken here.",
    "rate": "Too many requests; at most {} from one address.",
    "internal": "Something broke here; the fault is not yours.",
}


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """A refusal: its kind, one English sentence, and after how many seconds it is worth trying again.

    ``reason`` is what ``canonistia classify`` would write in the picture's row.
    """

    def __init__(self, kind: str, detail: str, retry_after: int | None = None, reason: str | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        self.reason = reason or detail
        self.counted = False  # in the metrics, with the picture that it is about

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return STATUS[self.kind]


@contextmanager
def picture_problems() -> Iterator[None]:
    """Turn what decoding says of a picture into a problem."""
    try:
        yield
    except PictureError as error:
        raise Problem(_kind_of(error), f"This file {error}.", reason=str(error)) from error


def _kind_of(error: PictureError) -> str:
    if isinstance(error, UnknownFormatError):
        return "format"
    return "picture_too_large" if isinstance(error, TooManyPixelsError) else "damaged"


def problem_of(error: HTTPException) -> Problem:
    """Return the problem for an error of Werkzeug's own, such as a path that does not exist."""
    if isinstance(error, SecurityError):
        return Problem("host", "This server is not called by that name.")
    status = error.code or 500
    kind = _OF_STATUS.get(status, "malformed" if status < 500 else "internal")
    return Problem(kind, _SENTENCES[kind].format(error.description))
