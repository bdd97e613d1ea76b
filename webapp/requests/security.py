"""Locks: who may ask, from where, how often; and what a browser may do with the answers."""

import hmac
from urllib.parse import urlsplit

from flask import Flask, Request, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from webapp.problems import Problem
from webapp.requests.state import state
from webapp.settings import Settings

# Everything comes from this server; previews are data: and blob: addresses.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OPEN = {"static", "infer.live", "infer.ready"}  # for monitors and browsers, key or not


def install(app: Flask, settings: Settings) -> None:
    """Put the locks on an application."""
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = 2**20  # of the fields that are no files
    app.config["MAX_FORM_PARTS"] = settings.max_pictures + 20
    app.config["TRUSTED_HOSTS"] = list(settings.trusted_hosts) or None
    if settings.behind_proxy:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
    if settings.rate:
        _limit_rate(app, settings.rate)
    keys = tuple(key.encode() for key in settings.api_keys)

    @app.before_request
    def check() -> None:
        if request.method == "POST":
            _refuse_other_sites(request)
        if keys and request.endpoint not in _OPEN:
            _check_key(request, keys)
        if request.method == "POST":
            _admit(settings)

    @app.teardown_request
    def leave(_: BaseException | None) -> None:
        share = g.pop("share", None)
        if share:
            state().admission.give_back(*share)

    @app.after_request
    def headers(response: Response) -> Response:
        response.headers.update(_HEADERS)
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return response


def _admit(settings: Settings) -> None:
    length = request.content_length
    if length is not None and length > settings.max_upload_bytes:
        raise Problem("upload_too_large", f"At most {settings.max_upload_bytes // 2**20} MB go at once.")
    share = (1, settings.max_upload_bytes if length is None else length)
    state().admission.take(*share)
    g.share = share


def _refuse_other_sites(asked: Request) -> None:
    """Refuse what a browser says another site made it send; programs send neither header."""
    site = asked.headers.get("Sec-Fetch-Site", "same-origin")
    origin = asked.headers.get("Origin")
    foreign = origin is not None and urlsplit(origin).netloc != asked.host
    if foreign or site not in ("same-origin", "none"):
        raise Problem("cross_site", "This was sent from a page of another site.")


def _check_key(asked: Request, keys: tuple[bytes, ...]) -> None:
    """Take the key from ``Authorization`` (Bearer, or the password of Basic) or ``X-API-Key``."""
    given = asked.headers.get("X-API-Key") or ""
    if asked.authorization is not None:
        given = asked.authorization.token or asked.authorization.get("password") or given
    # Every key is compared, in constant time: neither which one matched nor how much of it shows in the time.
    matches = [hmac.compare_digest(given.encode(), key) for key in keys]
    if not any(matches):
        raise Problem("key", "An API key is needed: 'Authorization: Bearer KEY', or as the password of a browser.")


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
