"""Listening: the address of the service is taken before any model is loaded, so that a port in use is said first."""

import ctypes
import errno
import ipaddress
import os
import socket
import stat
import struct
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from gunicorn.systemd import SD_LISTEN_FDS_START, listen_fds

from cascade.errors import CanonistiaError

_BACKLOG = 2048
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# The permissions of a socket's folder say who may connect; a proxy runs as a user of its own.
_SOCKET_MODE = 0o666
_SO_ATTACH_FILTER = 26  # of Linux; Python has no name for it
_KEEP_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # one instruction of a packet filter: return, with 0 bytes kept


@dataclass(frozen=True)
class Listener:
    """A socket that listens, and its address for people; ``inherited``: the one who started the service made it."""

    socket: socket.socket
    address: str
    inherited: bool = False

    @property
    def is_local(self) -> bool:
        """Return whether it listens on an address that only this machine can reach."""
        return self.socket.family != socket.AF_UNIX and ipaddress.ip_address(self._host).is_loopback

    @property
    def names(self) -> tuple[str, ...]:
        """Return the host names under which it is reached from this machine; none where others can reach it."""
        return tuple(dict.fromkeys((*_LOOPBACK, self._host))) if self.is_local else ()

    @property
    def _host(self) -> str:
        return str(self.socket.getsockname()[0]).partition("%")[0]


def listen(host: str, port: int, option: str = "--port") -> Listener:
    """Return a listener on the first usable address of a host; ``::`` is every address, of IPv4 too.

    ``option`` is the one that gave the port.

    Raises
    ------
    CanonistiaError
        The port is in use or reserved, or the host is not an address of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no name of a host"
        raise CanonistiaError(f"{host} cannot be found ({reason}); give --host an address of this machine") from error
    refusals: list[OSError] = []
    for family, _, _, _, address in found:
        try:
            both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
            made = socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        except OSError as error:
            refusals.append(error)
        else:
            return Listener(made, _address(host, port))
    raise _refusal(host, port, refusals[0], option) from refusals[0]


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that takes a port and does not listen, so that several processes of this user can listen at it.

    Raises
    ------
    CanonistiaError
        As :func:`listen`.
    """
    with listen(host, port, "--grpc-port").socket as probe:  # one that shares would not notice another service
        family, address = probe.family, probe.getsockname()
    reserved = socket.socket(family)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        reserved.bind(address)
    except OSError as error:
        reserved.close()
        raise _refusal(host, port, error, "--grpc-port") from error
    return reserved


def listen_at_path(path: Path) -> Listener:
    """Return a listener on a Unix socket; one that a killed service left at the path is replaced.

    Raises
    ------
    CanonistiaError
        Another service answers at the path, it is no socket, or no socket can be made there.
    """
    made = socket.socket(socket.AF_UNIX)
    try:
        if path.exists():
            _remove_lost(path)
        made.bind(str(path))
        path.chmod(_SOCKET_MODE)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        reason = error.strerror or str(error)
        raise CanonistiaError(
            f"no socket can be made at {path} ({reason}); give --bind a path of at most 107 bytes in a folder that "
            "exists and can be written"
        ) from error
    except CanonistiaError:
        made.close()
        raise
    return Listener(made, f"unix:{path}")


def admit_nobody(listening: socket.socket) -> None:
    """Let no further client connect to a TCP socket, for every process that has it; those who wait in its queue stay.

    Closing the socket resets whoever connected after the last look into the queue. Once this was called nobody does: a
    client tries again after a second, and is refused when the socket is closed. Cannot be taken back. On systems
    other than Linux, and where packet filters are forbidden, it does nothing.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_KEEP_NOTHING)
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


def _remove_lost(path: Path) -> None:
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise CanonistiaError(f"{path} is there and is no socket; choose another path for --bind, or move it away")
    with closing(socket.socket(socket.AF_UNIX)) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:  # nobody listens any more
            path.unlink()
            return
    raise CanonistiaError(f"{path} is in use; stop the program that uses it, or choose another path for --bind")


def inherited_listener() -> Listener | None:
    """Return the socket that systemd made for this service; None if it made none.

    Raises
    ------
    CanonistiaError
        It made several, or one that is no listening stream socket.
    """
    made = listen_fds()
    if made == 0:
        return None
    if made > 1:
        raise CanonistiaError(f"systemd passes {made} sockets; expected one; keep one ListenStream= of the socket unit")
    found = socket.socket(fileno=SD_LISTEN_FDS_START)
    if found.type != socket.SOCK_STREAM or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise CanonistiaError(
            "the socket that systemd passes takes no connections; expected one that listens; use ListenStream= and "
            "Accept=no in the socket unit"
        )
    name = found.getsockname()
    return Listener(found, f"unix:{name}" if found.family == socket.AF_UNIX else _address(*name[:2]), inherited=True)


def _refusal(host: str, port: int, error: OSError, option: str) -> CanonistiaError:
    if error.errno == errno.EADDRINUSE:
        return CanonistiaError(
            f"port {port} of {host} is in use; stop the program that uses it, or choose another {option}"
        )
    if error.errno == errno.EACCES:
        return CanonistiaError(f"port {port} is reserved for the system; choose a {option} of 1024 or more")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return CanonistiaError(f"{host} cannot be listened on ({reason}); give --host an address of this machine")


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
