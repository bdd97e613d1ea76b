"""Security: host names, API keys and sizes are checked before a body is read; the security headers of responses."""

from collections.abc import Sequence

from flask import Flask, Request, Response, g, request
from limits.storage import MemoryStorage, Storage
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from webapp.problems import Problem
from webapp.requests.bodies import RECEIVE, bytes_held, hold, most_bytes, too_large
from webapp.requests.connection import client_address
from webapp.requests.origins import add_cors_headers, admitted_origin, is_preflight, refuse_other_sites
from webapp.requests.prefix import EXPECTED, HEADER, Prefixed, nearest, parse_prefix
from webapp.requests.rates import WrongKeys, limit_rate
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
# For monitors and browsers, without a key.
OPEN = {"static", "infer.live", "infer.ready", "grpc.ServerLive", "grpc.ServerReady"}
# A probe asks by address, and knows no name.
UNDER_ANY_NAME = {"infer.live", "infer.ready", "infer.model_ready", "show_metrics"}


def install(app: Flask, settings: Settings, rates: Storage | None = None) -> None:
    """Install all checks and headers in an application; ``rates`` counts requests and wrong keys (None: in memory)."""
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = MB  # of the fields that are not files
    app.config["MAX_FORM_PARTS"] = settings.max_pictures + 20
    if settings.behind_proxy:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]
    app.wsgi_app = Prefixed(app.wsgi_app, settings.prefix, settings.behind_proxy)  # type: ignore[method-assign]
    keyring = settings.keyring
    rates = rates or MemoryStorage()
    wrong_keys = WrongKeys(settings.rate, rates) if settings.rate and keyring else None

    @app.before_request
    def find_key() -> None:
        given = _given_key(request)
        if wrong_keys and given is not None and request.endpoint not in OPEN:
            wrong_keys.check(client_address())
        g.api_key = None if given is None else keyring.find(given)
        g.has_wrong_key = bool(keyring) and given is not None and g.api_key is None

    if settings.rate or keyring:
        limit_rate(app, settings.rate, rates)

    @app.before_request
    def check() -> None:
        if settings.behind_proxy:
            _check_prefix(request)
        # Browsers can be led to a name, and do not speak gRPC.
        if request.endpoint not in UNDER_ANY_NAME and RECEIVE not in request.environ:
            _check_host(request, settings.trusted_hosts)
        admitted = admitted_origin(request, settings.allowed_origins) is not None
        if request.method == "POST" and not admitted:
            refuse_other_sites(request)
        if keyring and request.endpoint not in OPEN and not (admitted and is_preflight(request)):
            _check_key(wrong_keys)
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
        add_cors_headers(response, request, settings.allowed_origins)
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return response


def _check_host(incoming: Request, trusted: Sequence[str]) -> None:
    """Refuse a request under another host name; Werkzeug's check knows no IPv6 address."""
    host = incoming.host.lower()
    address, bracket, _ = host.removeprefix("[").partition("]")
    names = [name.strip("[]").lower() for name in trusted]
    if names and not (address in names if bracket else host_is_trusted(host, names)):
        raise Problem("host", "This server does not answer under this host name; see --trusted-host.")


def _check_prefix(incoming: Request) -> None:
    given = nearest(incoming.headers.get(HEADER, ""))
    if parse_prefix(given) is None:
        raise Problem("malformed", f"The header {HEADER} holds no prefix; {EXPECTED}; correct the proxy.")


def _admit(settings: Settings) -> None:
    length, allowed = request.content_length, most_bytes(settings)
    if length is not None and length > allowed:
        raise too_large(allowed)
    hold(1, bytes_held(settings))


def _given_key(incoming: Request) -> str | None:
    """Return the key in ``Authorization`` (Bearer, or the password of Basic) or ``X-API-Key``; None without one."""
    given = incoming.headers.get("X-API-Key")
    if incoming.authorization is not None:
        given = incoming.authorization.token or incoming.authorization.get("password") or given
    return given or None


def _check_key(wrong_keys: WrongKeys | None) -> None:
    if g.api_key is None:
        if wrong_keys and g.has_wrong_key:
            wrong_keys.count(client_address())
        raise Problem("key", "An API key is required: 'Authorization: Bearer KEY', or as the browser's password.")
