"""The rate storage: a Redis in which the replicas of a service count together."""

import logging
import time
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

from limits.storage import Storage, storage_from_string

from cascade.errors import CanonistiaError
from webapp.extras import check_installed

EXPECTED = "expected the address of a Redis, such as redis://redis.internal:6379/0 (rediss:// with TLS)"
_SCHEMES = ("redis", "rediss")
_LIBRARIES = {"redis": "redis"}
_PREFIX = "canonistia"  # of every key
_SECONDS = 0.5  # for a connection, and for an answer: a request waits for it
_RETRY_SECONDS = 5  # while it cannot be reached, it is asked that often

_LOG = logging.getLogger("canonistia.rates")


def is_storage_address(text: str) -> bool:
    """Return whether a text is the address of a Redis."""
    try:
        parts = urlsplit(text)
        return parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def check_storage(address: str) -> None:
    """Raise CanonistiaError unless a Redis answers at an address, and its library is installed."""
    check_installed("--rate-storage", "redis", _LIBRARIES)
    if not _connected(address).check():
        raise CanonistiaError(f"no Redis answers at {_shown(address)}; start it, or correct --rate-storage")


def shared_rates(address: str, fallback: Storage) -> Storage:
    """Return a storage that counts in a Redis (see :class:`SharedRates`)."""
    return cast(Storage, SharedRates(address, fallback))


class SharedRates:
    """Counts in a Redis; while that cannot be reached, in ``fallback``, so that the service goes on.

    It has the methods of a storage that counts. The log says once that the Redis is lost, and once that it is back.
    """

    def __init__(self, address: str, fallback: Storage) -> None:
        self._shown = _shown(address)
        self._storage = _connected(address)
        self._fallback = fallback
        self._is_lost = False
        self._retry_at = 0.0  # on the monotonic clock

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, and return the count."""
        return self._asked(lambda storage: storage.incr(key, expiry, amount))

    def get(self, key: str) -> int:
        """Return the count."""
        return self._asked(lambda storage: storage.get(key))

    def get_expiry(self, key: str) -> float:
        """Return when the count ends, in seconds since 1970."""
        return self._asked(lambda storage: storage.get_expiry(key))

    def check(self) -> bool:
        """Return that it can count: it always can."""
        return True

    def reset(self) -> int | None:
        """Forget every count."""
        return self._asked(lambda storage: storage.reset())

    def clear(self, key: str) -> None:
        """Forget a count."""
        self._asked(lambda storage: storage.clear(key))

    def _asked(self, ask: Callable[[Storage], Any]) -> Any:
        if time.monotonic() < self._retry_at:
            return ask(self._fallback)
        try:
            answer = ask(self._storage)
        except self._storage.base_exceptions as error:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            if not self._is_lost:
                _LOG.error("%s cannot be reached; each machine counts for itself until it can: %s", self._shown, error)
            self._is_lost = True
            return ask(self._fallback)
        if self._is_lost:
            _LOG.warning("%s can be reached again, and counts", self._shown)
        self._is_lost = False
        return answer


def _connected(address: str) -> Storage:
    options = {"key_prefix": _PREFIX, "socket_timeout": _SECONDS, "socket_connect_timeout": _SECONDS}
    return storage_from_string(address, **options)  # type: ignore[return-value, arg-type]


def _shown(address: str) -> str:
    """Return an address without its name and password."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
