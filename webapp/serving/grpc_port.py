"""The port for gRPC: taken by the master before any model is loaded; each worker has a server that listens at it."""

import os
import socket
from typing import Protocol

from webapp.extras import check_installed
from webapp.serving.listening import reserve

_LIBRARIES = {"grpcio": "grpc", "protobuf": "google.protobuf"}  # with the module of each
# The library writes past the log, such as of clients that hang up; what fails is raised.
_SILENT = ("GRPC_VERBOSITY", "NONE")


class CallServer(Protocol):
    """A server of one worker."""

    def start(self, address: str) -> None:
        """Listen at an address."""

    def finish(self) -> None:
        """Take no further call; return at once."""

    def stop(self) -> None:
        """Wait for the calls in progress, and end."""


class GrpcPort:
    """A port for gRPC; while nobody listens at it, it stays taken.

    Raises
    ------
    CanonistiaError
        The libraries are missing, or the port is in use.
    """

    def __init__(self, host: str, port: int) -> None:
        check_installed("--grpc-port", "grpc", _LIBRARIES)
        os.environ.setdefault(*_SILENT)
        self._reserved = reserve(host, port)
        self._server: CallServer | None = None

    @property
    def address(self) -> str:
        """Return the address as gRPC writes it, such as ``[::1]:8001``."""
        host, port = self._reserved.getsockname()[:2]
        return f"[{host}]:{port}" if self._reserved.family == socket.AF_INET6 else f"{host}:{port}"

    def close(self) -> None:
        """Give the port up."""
        self._reserved.close()

    def start(self, server: CallServer) -> None:
        """Let a worker's server listen; called in the worker."""
        self._server = server
        server.start(self.address)

    def finish(self) -> None:
        """Take no further call in this worker; return at once."""
        if self._server:
            self._server.finish()

    def stop(self) -> None:
        """Wait for this worker's calls in progress."""
        if self._server:
            self._server.stop()
