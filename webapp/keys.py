"""API keys: read from a file, and read again while the service runs."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from cascade.errors import CanonistiaError

_TABLES = ".toml"


@dataclass(frozen=True)
class ApiKey:
    """A key; its name is written in the log, and its rate holds for its POST requests, in place of the service's."""

    secret: str
    name: str | None = None
    rate: str | None = None


class KeysError(CanonistiaError):
    """A file of keys cannot be used."""


class Keyring:
    """The keys of a service; without any, the service is open. Threads may use it while it is read again."""

    def __init__(self, keys: Sequence[ApiKey] = (), path: Path | None = None) -> None:
        self._keys = tuple(keys)
        self._path = path

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, given: str) -> ApiKey | None:
        """Return the key of that secret; None if there is none."""
        # Every key is compared in constant time: the time shows neither which key matched nor how much of it.
        secret = given.encode()
        matches = [key for key in self._keys if hmac.compare_digest(secret, key.secret.encode())]
        return matches[0] if matches else None

    def reload(self) -> None:
        """Read the file again, if the keys came from one; on KeysError, the keys stay as they are."""
        if self._path is not None:
            self._keys = read_keys(self._path)


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    key: Annotated[str, msgspec.Meta(pattern=r"\S")]
    rate: str | None = None


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Return the keys of a file: one per line, or, where its name ends in ``.toml``, one table per named key.

    Raises
    ------
    KeysError
        The file cannot be read, holds no key, a key twice, one that is not ASCII, or a rate that is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise KeysError(f"{path} cannot be read ({reason}); expected a text file with one key per line") from error
    keys = _named_keys(path, text) if path.suffix == _TABLES else _plain_keys(text)
    secrets = [key.secret for key in keys]
    if not all(map(str.isascii, secrets)):
        raise KeysError(f"{path} holds a key with characters outside ASCII; expected ASCII only; replace that key")
    if not keys:
        raise KeysError(f"{path} holds no key; expected one per {'table' if path.suffix == _TABLES else 'line'}")
    if len(set(secrets)) < len(secrets):
        raise KeysError(f"{path} holds a key twice; expected each once; remove one of them")
    return keys


def _plain_keys(text: str) -> tuple[ApiKey, ...]:
    lines = [line.strip() for line in text.splitlines()]
    return tuple(dict.fromkeys(ApiKey(line) for line in lines if line and not line.startswith("#")))


def _named_keys(path: Path, text: str) -> tuple[ApiKey, ...]:
    try:
        tables = msgspec.toml.decode(text, type=dict[str, _Table])
    except (msgspec.DecodeError, ValueError) as error:
        raise KeysError(
            f'{path} cannot be read ({error}); expected tables such as [phone] with key = "..." and, if wanted, '
            'rate = "60/minute"; correct it'
        ) from error
    for name, table in tables.items():
        if table.rate is not None and not is_rate(table.rate):
            raise KeysError(f"{path} gives {name} the rate '{table.rate}'; expected such as '60/minute'; correct it")
    return tuple(ApiKey(table.key.strip(), name, table.rate) for name, table in tables.items())


def is_rate(text: str) -> bool:
    """Return whether a text is a rate in the notation of the limits library."""
    from limits import parse_many

    try:
        return bool(parse_many(text))
    except ValueError:
        return False
