"""Listening: the address of the service is taken before any model is loaded, so that a port in use is said first."""

import errno
import ipaddress
import os
import socket

from cascade.errors import CanonistiaError

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the first usable address of a host; ``::`` is every address, of IPv4 too.

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
            return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        except OSError as error:
            refusals.append(error)
    raise _refusal(host, port, refusals[0]) from refusals[0]


def _refusal(host: str, port: int, error: OSError) -> CanonistiaError:
    if error.errno == errno.EADDRINUSE:
        return CanonistiaError(
            f"port {port} of {host} is in use; stop the program that uses it, or choose another --port"
        )
    if error.errno == errno.EACCES:
        return CanonistiaError(f"port {port} is reserved for the system; choose a --port of 1024 or more")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return CanonistiaError(f"{host} cannot be listened on ({reason}); give --host an address of this machine")


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only this machine can reach a listener."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def address_of(host: str, port: int) -> str:
    """Return the address of the page."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
