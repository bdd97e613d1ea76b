"""Origins: which pages of other sites may send requests and read answers (the CORS protocol of the Fetch standard).

A list of exact origins: no patterns, so that no name that merely looks like one of them is let in.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from flask import Request, Response

from webapp.problems import Problem

ANY = "*"
EXPECTED = "an origin is a scheme and a host, such as https://photos.example, or *"
PROGRAM_PATHS = ("/api/v1", "/v2")  # what a page elsewhere may call; the page of this server is for itself alone
_PORTS = {"http": 80, "https": 443}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Encoding, Content-Type, Inference-Header-Content-Length, "
    "X-API-Key, X-Request-ID",
    "Access-Control-Max-Age": "600",  # seconds
}
_EXPOSED = (
    "Inference-Header-Content-Length, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
    "X-Request-ID"
)


def parse_origin(text: str) -> str | None:
    """Return an origin as browsers send it, in lower case and without its default port; None if the text is none."""
    if text == ANY:
        return ANY
    try:
        parts = urlsplit(text.lower())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or text.lower() != f"{parts.scheme}://{parts.netloc}":
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if parts.username is not None or any(not sign.isprintable() or sign in " \\%" for sign in host):
        return None
    return f"{parts.scheme}://{host}" if port in (None, _PORTS[parts.scheme]) else f"{parts.scheme}://{host}:{port}"


def admitted_origin(incoming: Request, allowed: Collection[str]) -> str | None:
    """Return the origin, or ``*``, that may read the answer to a request; None: this server's own pages alone."""
    origin = incoming.headers.get("Origin")
    if origin is None or not incoming.path.startswith(PROGRAM_PATHS):
        return None
    if ANY in allowed:
        return ANY
    given = parse_origin(origin)
    return given if given in allowed else None


def is_preflight(incoming: Request) -> bool:
    """Return whether a browser asks, without a key, if it may send a request."""
    return incoming.method == "OPTIONS" and "Access-Control-Request-Method" in incoming.headers


def refuse_other_sites(incoming: Request) -> None:
    """Refuse a request that a page of another site made a browser send; programs send neither header."""
    site = incoming.headers.get("Sec-Fetch-Site", "same-origin")
    origin = incoming.headers.get("Origin")
    foreign = origin is not None and not _is_own(origin, incoming.host)
    if foreign or site not in ("same-origin", "none"):
        raise Problem("cross_site", "This was sent from a page of another site; use the page of this server.")


def _is_own(origin: str, host: str) -> bool:
    parsed = parse_origin(origin)
    return parsed is not None and parsed.partition("://")[2] == host.lower()


def add_cors_headers(response: Response, incoming: Request, allowed: Collection[str]) -> None:
    """Let the browsers of admitted origins read an answer."""
    if not allowed or not incoming.path.startswith(PROGRAM_PATHS):
        return
    if ANY not in allowed:
        response.vary.add("Origin")
    origin = admitted_origin(incoming, allowed)
    if origin is None:
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    if is_preflight(incoming):
        response.headers.update(_PREFLIGHT)
    else:
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
