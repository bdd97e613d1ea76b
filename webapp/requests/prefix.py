"""The prefix: the path under which a proxy publishes the service; addresses in its answers begin with it."""

import re
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HEADER = "X-Forwarded-Prefix"
EXPECTED = "a prefix begins with a slash and holds letters, digits and -._~ alone, such as /photos"
# How the service's own paths begin: under a prefix such as /api, a path would have two readings.
OWN = frozenset({"api", "corrections", "maps", "metrics", "model", "static", "v2"})

# A segment of dots would lead out of the prefix, and a second slash to another host.
_PREFIX = re.compile(r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*/?")


def parse_prefix(text: str) -> str | None:
    """Return a prefix without the slash at its end, "" for the root; None if the text is no prefix."""
    return text.rstrip("/") if _PREFIX.fullmatch(text) else None


def is_own(prefix: str) -> bool:
    """Return whether a prefix begins like a path of the service."""
    return bool(OWN.intersection(prefix.split("/")[1:2]))


class Prefixed:
    """A WSGI application under a prefix: the one given or, with ``trusting``, the one that the proxy names.

    The proxy may pass paths with the prefix or without it. A header that holds no prefix is not used.
    """

    def __init__(self, app: WSGIApplication, prefix: str, trusting: bool) -> None:
        self._app = app
        self._prefix = prefix
        self._trusting = trusting

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        prefix = self._prefix
        if self._trusting and (named := environ.get("HTTP_X_FORWARDED_PREFIX")):
            prefix = parse_prefix(nearest(named)) or prefix
        if prefix:
            environ["SCRIPT_NAME"] = prefix
            path = environ.get("PATH_INFO", "")
            if f"{path}/".startswith(f"{prefix}/") and not is_own(prefix):
                environ["PATH_INFO"] = path.removeprefix(prefix)
        return self._app(environ, start_response)


def nearest(header: str) -> str:
    """Return the value that the nearest proxy gave: the last of a list."""
    return header.rpartition(",")[2].strip()
