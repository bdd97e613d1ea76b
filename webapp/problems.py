"""Problems: the reasons why a request, or one of its pictures, is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.exceptions import HTTPException, SecurityError

from cascade.errors import PictureError, TooManyPixelsError, UnknownFormatError

# Kind to HTTP status. The kind names the problem in metrics, in the "type" of the API, and in the texts of the page.
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
    "malformed": "The request is malformed; see {root}/api/docs.",
    "not_found": "There is no page at this address; see {root}/ or {root}/api/docs.",
    "method": "This address does not allow that method; see {root}/api/docs.",
    "upload_too_large": "The request has too many bytes, or too many form fields; send fewer pictures.",
    "media_type": "The content type of the body is not supported; see {root}/api/docs.",
    "rate": "Too many requests; at most {allowed} are allowed per address; try again later.",
    "internal": "The server failed; try again later.",
}


class Problem(Exception):  # noqa: N818 - the term of RFC 9457
    """A refusal: its kind, one English sentence, and after how many seconds a retry may succeed.

    ``reason`` is the error that ``canonistia classify`` writes in the picture's row.
    """

    def __init__(self, kind: str, detail: str, retry_after: int | None = None, reason: str | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        self.reason = reason or detail
        self.counted = False  # in the metrics, together with its picture

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return STATUS[self.kind]


@contextmanager
def picture_problems() -> Iterator[None]:
    """Turn an error of decoding a picture into a problem."""
    try:
        yield
    except PictureError as error:
        raise Problem(_kind_of(error), f"This file {error}.", reason=str(error)) from error


def _kind_of(error: PictureError) -> str:
    if isinstance(error, UnknownFormatError):
        return "format"
    return "picture_too_large" if isinstance(error, TooManyPixelsError) else "damaged"


def problem_of(error: HTTPException, root: str = "") -> Problem:
    """Return the problem for an error that Werkzeug raised, such as an unknown path; ``root`` is before every path."""
    if isinstance(error, SecurityError):
        return Problem("host", "This server does not answer under this host name; see --trusted-host.")
    status = error.code or 500
    kind = _OF_STATUS.get(status, "malformed" if status < 500 else "internal")
    return Problem(kind, _SENTENCES[kind].format(allowed=error.description, root=root))
