"""Held: bytes about answered pictures, kept in memory for what their visitors ask later, such as a correction."""

import secrets
import threading
import time
from collections import OrderedDict

_MOST_BYTES = 128 * 2**20  # altogether
_MOST_SECONDS = 3600


class Held:
    """Bytes under tokens that nobody can guess; the oldest go first when they are too many. Safe to call from threads.

    Nothing is written to a disk. With several workers it is in the memory of their master, so whichever worker answers
    finds what another one held.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES, most_seconds: float = _MOST_SECONDS) -> None:
        self._most_bytes, self._most_seconds = most_bytes, most_seconds
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # with the time on the monotonic clock
        self._size = 0

    def put(self, data: bytes) -> str:
        """Keep bytes for up to an hour; return their token for :meth:`get`."""
        token, now = secrets.token_urlsafe(16), time.monotonic()
        with self._lock:
            self._kept[token] = (data, now)
            self._size += len(data)
            for old, (kept, since) in list(self._kept.items())[:-1]:
                if self._size <= self._most_bytes and now - since <= self._most_seconds:
                    break
                self._size -= len(kept)
                del self._kept[old]
        return token

    def get(self, token: str) -> bytes | None:
        """Return the bytes of a token; None where they are no longer kept."""
        with self._lock:
            kept, since = self._kept.get(token, (None, 0.0))
        return kept if time.monotonic() - since <= self._most_seconds else None
