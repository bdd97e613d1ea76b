"""Security: API keys, cross-site checks, rate limits, and the security headers of responses."""

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from flask import Flask, Request, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from webapp.problems import Problem
from webapp.requests.bodies import bytes_held, most_bytes, too_large
from webapp.requests.state import state
from webapp.settings import MB, Settings

# The page loads everything from this server; previews are data: and blob: addresses.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OPEN = {"static", "infer.live", "infer.ready"}  # for monitors and browsers, without a key


def install(app: Flask, settings: Settings) -> None:
    """Install all checks and headers in an application."""
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = MB  # of the fields that are not files
    app.config["MAX_FORM_PARTS"] = settings.max_pictures + 20
    if settings.behind_proxy:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
    if settings.rate:
        _limit_rate(app, settings.rate)
    keys = tuple(key.encode() for key in settings.api_keys)

    @app.before_request
    def check() -> None:
        _check_host(request, settings.trusted_hosts)
        if request.method == "POST":
            _refuse_other_sites(request)
        if keys and request.endpoint not in _OPEN:
            _check_key(request, keys)
        if request.method == "POST":
            _admit(settings)

    @app.teardown_request
    def release(_: BaseException | None) -> None:
        share = g.pop("share", None)
        if share:
            state().admission.release(*share)

    @app.after_request
    def headers(response: Response) -> Response:
        response.headers.update(_HEADERS)
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return response


def _check_host(incoming: Request, trusted: Sequence[str]) -> None:
    """Refuse a request under another host name; Werkzeug's check knows no IPv6 address."""
    address, bracket, _ = incoming.host.removeprefix("[").partition("]")
    names = [name.strip("[]") for name in trusted]
    if names and not (address in names if bracket else host_is_trusted(incoming.host, names)):
        raise Problem("host", "This server does not answer under this host name; see --trusted-host.")


def _admit(settings: Settings) -> None:
    length, allowed = request.content_length, most_bytes(settings)
    if length is not None and length > allowed:
        raise too_large(allowed)
    share = (1, bytes_held(settings))
    state().admission.acquire(*share)
    g.share = share


def _refuse_other_sites(incoming: Request) -> None:
    """Refuse a request that a page of another site made a browser send; programs send neither header."""
    site = incoming.headers.get("Sec-Fetch-Site", "same-origin")
    origin = incoming.headers.get("Origin")
    foreign = origin is not None and urlsplit(origin).netloc != incoming.host
    if foreign or site not in ("same-origin", "none"):
        raise Problem("cross_site", "This was sent from a page of another site; use the page of this server.")


def _check_key(incoming: Request, keys: tuple[bytes, ...]) -> None:
    """Check the key in ``Authorization`` (Bearer, or the password of Basic) or ``X-API-Key``."""
    given = incoming.headers.get("X-API-Key") or ""
    if incoming.authorization is not None:
        given = incoming.authorization.token or incoming.authorization.get("password") or given
    # Every key is compared in constant time: the time shows neither which key matched nor how much of it.
    matches = [hmac.compare_digest(given.encode(), key) for key in keys]
    if not any(matches):
        raise Problem("key", "An API key is required: 'Authorization: Bearer KEY', or as the browser's password.")


def _limit_rate(app: Flask, rate: str) -> None:
    from flask_limiter import Limiter
    from flask_limiter.util import get_remote_address

    Limiter(
        get_remote_address,
        app=app,
        application_limits=[rate],
        application_limits_exempt_when=lambda: request.method != "POST",
        storage_uri="memory://",
        headers_enabled=True,
    )
