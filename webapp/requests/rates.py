"""Rates: how many POST requests a client may send, and how many wrong keys it may try."""

import math
import time

from flask import Flask, g, request
from flask_limiter import Limiter
from limits import parse_many
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from webapp.problems import Problem
from webapp.requests.connection import client_address


def limit_rate(app: Flask, rate: str | None) -> None:
    """Limit the POST requests per client address; a key with a rate of its own counts for itself, at any address."""

    def applied() -> str:
        return _own_rate() or rate or ""

    Limiter(
        lambda: f"key {g.api_key.name}" if _own_rate() else client_address(),
        app=app,
        application_limits=[applied],
        application_limits_exempt_when=lambda: request.method != "POST" or not applied(),
        storage_uri="memory://",
        headers_enabled=True,
    )


def _own_rate() -> str | None:
    return g.api_key.rate if g.get("api_key") else None


class WrongKeys:
    """Counts the wrong keys that an address tries; over the rate, no key of that address is looked at for a while.

    Without this, a right guess among many would show by its answer.
    """

    def __init__(self, rate: str) -> None:
        self._limits = parse_many(rate)
        self._counter = FixedWindowRateLimiter(MemoryStorage())
        self._rate = rate

    def check(self, address: str) -> None:
        """Raise Problem ``rate`` if the address has tried too many."""
        for limit in self._limits:
            if not self._counter.test(limit, address):
                reset = self._counter.get_window_stats(limit, address).reset_time
                wait = max(1, math.ceil(reset - time.time()))
                raise Problem("rate", f"Too many wrong keys; at most {self._rate} are allowed; try again later.", wait)

    def count(self, address: str) -> None:
        """Count a wrong key."""
        for limit in self._limits:
            self._counter.hit(limit, address)
