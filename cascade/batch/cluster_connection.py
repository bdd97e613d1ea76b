"""Connecting to a cluster of Ray. Needs the cluster extra."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from cascade.errors import CanonistiaError
from cascade.threads import processors


def connect(address: str | None = None, cores: int | None = None) -> None:
    """Connect to the Ray cluster at an address, by default that of ``$RAY_ADDRESS``.

    Without either, a cluster of this machine's cores, or of as many as are given, is started; it ends with
    ``ray.shutdown``. Ray's own default would be whichever cluster was last started on this machine, by whomever, even
    one that is gone.

    Raises
    ------
    CanonistiaError
        No cluster answers at the address, or none can be started.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {"num_cpus": cores or processors(), "include_dashboard": False} if address == "local" else {}
    try:
        _check_reachable(address)
        with _silent_stderr():
            ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False, **own)
    except (OSError, ValueError, RuntimeError) as error:
        raise CanonistiaError(_no_cluster(address, error)) from error


def last_line(error: Exception) -> str:
    """Return the last line of what an error of Ray says, which is its cause; the lines before are a traceback."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


def _no_cluster(address: str, error: Exception) -> str:
    if address == "local":
        return (
            f"Ray cannot start a cluster on this machine ({last_line(error)}); set RAY_TMPDIR to a folder that can be "
            "written to, or leave --engine ray out"
        )
    return (
        f"no Ray cluster answers at {address} ({last_line(error)}); expected HOST:PORT of a cluster that this machine "
        "is a node of, or auto"
    )


def _check_reachable(address: str) -> None:
    """Raise OSError or ValueError if nothing listens at the address: Ray itself would try for minutes."""
    if address not in ("local", "auto"):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError("this is no HOST:PORT")
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep the messages of Ray's C++ part off the terminal; they are about its log level and harmless events."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
