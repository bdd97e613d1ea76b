"""The server: gunicorn with one process and several threads around an application."""

from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

# Requests wait for decoding and inference, which release the interpreter; a few threads keep the cores busy.
_THREADS = 8


class Server(BaseApplication):
    """Serves the application that ``create`` returns; it is called in the worker, which owns the sessions."""

    def __init__(self, create: Callable[[], Flask], host: str, port: int) -> None:
        self._create = create
        self._bind = f"{host}:{port}"
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings."""
        settings: dict[str, Any] = {
            "bind": self._bind,
            "workers": 1,
            "threads": _THREADS,
            "worker_class": "gthread",
            "accesslog": None,
            "loglevel": "warning",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application."""
        return self._create()
