"""Logs: one line per request with its id, as text or JSON; no picture, no file name, no client address."""

import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from flask import Flask, Response, g, request
from gunicorn.glogging import Logger

from cascade.terminal import printable
from webapp.settings import LogStyle

REQUEST_ID = "X-Request-ID"
# What a client may choose: it stands in the log, so it is short and holds no space and no control.
_GIVEN_ID = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")
_ACCESS = logging.getLogger("canonistia.access")


_NATIVE = logging.getLogger("canonistia.native")
_LONGEST_LINE = 1000  # characters of what a library writes
_STANDARD_ERROR = 2


class _TextFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name that logging gives it
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(printable, super().formatException(ei).splitlines()))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Descriptor(logging.Handler):
    """Writes lines to a file descriptor: without a buffer, whose lock a worker would inherit.

    A log that cannot be written, on a full disk, stops no answer.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        _write(self._descriptor, self.format(record))


def _write(descriptor: int, line: str) -> None:
    with suppress(OSError):
        os.write(descriptor, f"{line}\n".encode(errors="backslashreplace"))


class _NoAddress(logging.Filter):
    """Removes the client's address and request line from gunicorn's message about an invalid request."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "ip=" in message:
            record.msg, record.args = "Invalid request", ()
        return True


def configure(style: LogStyle) -> type[Logger]:
    """Send the service's log to standard error, and return a logger class for gunicorn that does the same.

    With ``off`` it still holds warnings and errors.
    """
    handler = _Descriptor(os.dup(_STANDARD_ERROR))
    handler.setFormatter(
        _JsonFormatter() if style == "json" else _TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    handler.addFilter(_NoAddress())
    _send(logging.getLogger("canonistia"), handler)
    logging.getLogger("canonistia").setLevel(logging.WARNING if style == "off" else logging.INFO)

    class ServerLogger(Logger):
        """Sends gunicorn's messages to the same handler."""

        def setup(self, cfg: Any) -> None:
            super().setup(cfg)
            _send(self.error_log, handler)

    return ServerLogger


def greet(style: LogStyle, greeting: str) -> None:
    """Say that the service starts: to whoever started it, or as an entry of a JSON log."""
    if style == "json":
        logging.getLogger("canonistia.service").info(greeting)
    else:
        _write(_STANDARD_ERROR, printable(greeting))


@contextmanager
def native_output_logged() -> Iterator[None]:
    """Log what libraries write to standard error past the log, line by line, in this process and those forked from it.

    The log itself goes where standard error went before (see :func:`configure`).
    """
    before = os.dup(_STANDARD_ERROR)
    reading, writing = os.pipe()
    os.dup2(writing, _STANDARD_ERROR)
    os.close(writing)
    reader = threading.Thread(target=_log_lines, args=(reading,), name="native output", daemon=True)
    reader.start()
    try:
        yield
    finally:
        os.dup2(before, _STANDARD_ERROR)  # closes the pipe: the reader comes to its end
        os.close(before)
        reader.join(1)


def _log_lines(descriptor: int) -> None:
    with open(descriptor, encoding="utf-8", errors="backslashreplace") as lines:
        while line := lines.readline(_LONGEST_LINE):
            if line.strip():
                _NATIVE.warning(line.rstrip())


def _send(logger: logging.Logger, handler: logging.Handler) -> None:
    logger.handlers[:] = [handler]
    logger.propagate = False


def install(app: Flask) -> None:
    """Log every request of an application."""

    @app.before_request
    def start() -> None:
        g.started = time.monotonic()
        given = request.headers.get(REQUEST_ID, "")
        g.request_id = given if _GIVEN_ID.fullmatch(given) else uuid4().hex

    @app.after_request
    def log(response: Response) -> Response:
        response.headers[REQUEST_ID] = g.request_id
        if _ACCESS.isEnabledFor(logging.INFO):
            fields = {
                "method": request.method,
                "route": route(),
                "status": response.status_code,
                "milliseconds": round(1000 * (time.monotonic() - g.started), 1),
                "request_id": g.request_id,
                **{name: g.get(name) for name in ("model", "pictures", "problem") if g.get(name) is not None},
            }
            if g.get("api_key") and g.api_key.name:
                fields["key"] = printable(g.api_key.name)
            _ACCESS.info(" ".join(f"{name}={value}" for name, value in fields.items()), extra={"fields": fields})
        return response


def route() -> str:
    """Return the pattern of the current request's path; never the path itself, because a client chooses it."""
    return request.url_rule.rule if request.url_rule else "none"
