"""Logs: one line per request, as text or JSON; no picture, no file name, no client address."""

import json
import logging
import sys
import time
from typing import Any

from flask import Flask, Response, g, request
from gunicorn.glogging import Logger

from webapp.settings import LogStyle

_ACCESS = logging.getLogger("canonistia.access")


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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonFormatter() if style == "json" else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
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


def _send(logger: logging.Logger, handler: logging.Handler) -> None:
    logger.handlers[:] = [handler]
    logger.propagate = False


def install(app: Flask) -> None:
    """Log every request of an application."""

    @app.before_request
    def start() -> None:
        g.started = time.monotonic()

    @app.after_request
    def log(response: Response) -> Response:
        if _ACCESS.isEnabledFor(logging.INFO):
            fields = {
                "method": request.method,
                "route": route(),
                "status": response.status_code,
                "milliseconds": round(1000 * (time.monotonic() - g.get("started", time.monotonic())), 1),
                **{name: g.get(name) for name in ("model", "pictures", "problem") if g.get(name) is not None},
            }
            _ACCESS.info(" ".join(f"{name}={value}" for name, value in fields.items()), extra={"fields": fields})
        return response


def route() -> str:
    """Return the pattern of the current request's path; never the path itself, because a client chooses it."""
    return request.url_rule.rule if request.url_rule else "none"
