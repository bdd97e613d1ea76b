"""Rates: how many POST requests a client may send, and how many wrong keys it may try."""

import math
import time

from flask import Flask, g, request
from flask_limiter import Limiter
from limits import parse_many
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from webapp.problems import Problem
from webapp.requests.connection import client_address

_SCHEME = "canonistia"
_WRONG = "wrong key"  # before the address: the storage counts requests, too


class _Given(Storage):
    """A storage that stands for another one: Flask-Limiter takes an address and makes its storage itself."""

    STORAGE_SCHEME = [_SCHEME]  # noqa: RUF012  # as the library declares it

    def __init__(self, uri: str, storage: Storage, wrap_exceptions: bool = False) -> None:
        super().__init__(uri, wrap_exceptions)
        self._storage = storage

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        return ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self._storage.incr(key, expiry, amount)

    def get(self, key: str) -> int:
        return self._storage.get(key)

    def get_expiry(self, key: str) -> float:
        return self._storage.get_expiry(key)

    def check(self) -> bool:
        return self._storage.check()

    def reset(self) -> int | None:
        return self._storage.reset()

    def clear(self, key: str) -> None:
        self._storage.clear(key)


def limit_rate(app: Flask, rate: str | None, storage: Storage) -> None:
    """Limit the POST requests per client address; a key with a rate of its own counts for itself, at any address.

    ``storage`` counts; processes that share it share the rates.
    """

    def applied() -> str:
        return _own_rate() or rate or ""

    Limiter(
        lambda: f"key {g.api_key.name}" if _own_rate() else client_address(),
        app=app,
        application_limits=[applied],
        application_limits_exempt_when=lambda: request.method != "POST" or not applied(),
        storage_uri=f"{_SCHEME}://",
        storage_options={"storage": storage},  # type: ignore[dict-item]
        headers_enabled=True,
    )


def _own_rate() -> str | None:
    return g.api_key.rate if g.get("api_key") else None


class WrongKeys:
    """Counts the wrong keys that an address tries; over the rate, no key of that address is looked at for a while.

    Without this, a right guess among many would show by its answer.
    """

    def __init__(self, rate: str, storage: Storage) -> None:
        self._limits = parse_many(rate)
        self._counter = FixedWindowRateLimiter(_Given(_SCHEME, storage))
        self._rate = rate

    def check(self, address: str) -> None:
        """Raise Problem ``rate`` if the address has tried too many."""
        for limit in self._limits:
            if not self._counter.test(limit, _WRONG, address):
                reset = self._counter.get_window_stats(limit, _WRONG, address).reset_time
                wait = max(1, math.ceil(reset - time.time()))
                raise Problem("rate", f"Too many wrong keys; at most {self._rate} are allowed; try again later.", wait)

    def count(self, address: str) -> None:
        """Count a wrong key."""
        for limit in self._limits:
            self._counter.hit(limit, _WRONG, address)
