"""The serve command."""

import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cascade.cli import precision_option, threads_option
from cascade.config_file import config_option
from cascade.terminal import printable
from webapp.keys import Keyring, KeysError, is_rate, read_keys
from webapp.settings import MB, ServeOptions, Settings

if TYPE_CHECKING:
    from flask import Flask

    from webapp.serving.listening import Listener

_DEFAULT = Settings()
_LOG = logging.getLogger("canonistia.service")


def _checked_rate(_: click.Context, parameter: click.Parameter, rate: str | None) -> str | None:
    if rate is not None and not is_rate(rate):
        raise click.BadParameter(f"'{rate}' is not a rate; expected such as '60/minute'", param=parameter)
    return rate


def _checked_storage(_: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    from webapp.serving.rate_storage import EXPECTED, is_storage_address

    if given is not None and not is_storage_address(given):
        raise click.BadParameter(f"this is no address of a storage; {EXPECTED}", param=parameter)  # it may have a key
    return given


def _checked_prefix(_: click.Context, parameter: click.Parameter, given: str) -> str:
    from webapp.requests.prefix import EXPECTED, is_own, parse_prefix

    prefix = parse_prefix(given)
    if prefix is None:
        raise click.BadParameter(f"'{given}' is no prefix; {EXPECTED}", param=parameter)
    if is_own(prefix):
        raise click.BadParameter(
            f"'{given}' begins like a path of the service itself; choose another prefix, such as /photos{prefix}",
            param=parameter,
        )
    return prefix


def _checked_origins(_: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    from webapp.requests.origins import EXPECTED, parse_origin

    for text in given:
        if parse_origin(text) is None:
            raise click.BadParameter(f"'{text}' is no origin; {EXPECTED}", param=parameter)
    return tuple(str(parse_origin(text)) for text in given)


def _checked_bind(_: click.Context, parameter: click.Parameter, given: str | None) -> Path | None:
    if given is None:
        return None
    path = given.removeprefix("unix:")
    if path in ("", given):
        raise click.BadParameter(
            f"'{given}' is no address of a socket; expected unix:PATH, such as unix:/run/canonistia.sock; give an "
            "address and a port by --host and --port",
            param=parameter,
        )
    return Path(path)


@click.command(context_settings={"auto_envvar_prefix": "CANONISTIA_SERVE"})
@click.option(
    "--model",
    "models",
    envvar="CANONISTIA_SERVE_MODEL",
    multiple=True,
    default=["scene15"],
    show_default=True,
    help="Folder of a bundle, or its name under models/. Repeat it to serve several; the first is the default.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on (0.0.0.0: all of IPv4; ::: all)."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
@click.option(
    "--grpc-port",
    type=click.IntRange(1, 65535),
    help="Port of --host for the Open Inference Protocol over gRPC. Needs the extra grpc. Default: no gRPC.",
)
@click.option(
    "--bind",
    callback=_checked_bind,
    metavar="unix:PATH",
    help="Unix socket to listen on, instead of --host and --port.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=_DEFAULT.workers,
    show_default=True,
    help="Number of processes that answer, each with its own copy of the models.",
)
@click.option(
    "--memory",
    type=click.IntRange(min=1),
    help="Memory limit for the loaded bundles of all workers, in MB. Default: no limit.",
)
@click.option(
    "--max-upload",
    type=click.IntRange(1, 1024),
    default=_DEFAULT.max_upload_bytes // MB,
    show_default=True,
    help="Size limit per request, in MB.",
)
@click.option(
    "--max-pictures",
    type=click.IntRange(1, 1000),
    default=_DEFAULT.max_pictures,
    show_default=True,
    help="Maximum number of pictures per request.",
)
@click.option(
    "--max-megapixels",
    type=click.IntRange(1, 120),
    default=_DEFAULT.max_pixels // 1_000_000,
    show_default=True,
    help="Size limit per picture, in megapixels.",
)
@click.option(
    "--queue",
    type=click.IntRange(1, 4096),
    default=_DEFAULT.queue,
    show_default=True,
    help="Maximum number of pictures in progress per worker; more are refused (503).",
)
@click.option(
    "--deadline",
    type=click.FloatRange(0.1, 600),
    default=_DEFAULT.deadline_seconds,
    show_default=True,
    help="Time limit from upload to answer, in seconds (504 after that).",
)
@click.option(
    "--upload-time",
    type=click.FloatRange(0.5, 3600),
    default=_DEFAULT.upload_seconds,
    show_default=True,
    help="Time limit for a request to arrive, in seconds (408 after that).",
)
@click.option(
    "--rate",
    callback=_checked_rate,
    metavar="RATE",
    help="Rate limit for POST requests, and for wrong keys, per client address, such as '60/minute' (429 above it).",
)
@click.option(
    "--rate-storage",
    callback=_checked_storage,
    metavar="ADDRESS",
    help="Redis in which replicas of the service count their rates together, such as redis://redis.internal:6379/0. "
    "Needs the extra redis. Default: every replica counts for itself.",
)
@click.option(
    "--trusted-host",
    "trusted_hosts",
    envvar="CANONISTIA_SERVE_TRUSTED_HOST",
    multiple=True,
    metavar="NAME",
    help="Allowed Host header; requests with another one are refused. Default: the loopback names when the server "
    "listens on loopback, else any name.",
)
@click.option(
    "--behind-proxy", is_flag=True, help="Trust X-Forwarded-For, -Proto, -Host and -Prefix of one reverse proxy."
)
@click.option(
    "--prefix",
    default="",
    callback=_checked_prefix,
    metavar="PATH",
    help="Path under which a proxy publishes the service, such as /photos.",
)
@click.option(
    "--allow-origin",
    "allowed_origins",
    envvar="CANONISTIA_SERVE_ALLOW_ORIGIN",
    multiple=True,
    callback=_checked_origins,
    metavar="ORIGIN",
    help="Origin of a page elsewhere that may use the API, such as https://photos.example; * is any, without keys.",
)
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of API keys, one per line; lines that begin with # are comments. FILE.toml: a table per key with a name "
    "and, if wanted, a rate. A client sends one as Bearer token, X-API-Key, or browser password. Read again on SIGHUP.",
)
@click.option(
    "--collect",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for corrections by visitors: their pictures, and a manifest that train-main and train-sub read. "
    "Without it, no picture is stored.",
)
@click.option(
    "--max-collect",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Size limit for --collect, in MB.",
)
@click.option(
    "--log",
    type=click.Choice(["off", "text", "json"]),
    default="off",
    show_default=True,
    help="Log one line per request to standard error, without file names and addresses.",
)
@click.option("--debug", is_flag=True, help="Flask's development server, which shows tracebacks, on loopback only.")
@precision_option
@threads_option
@config_option("port = 8080")
def serve(**options: Any) -> None:
    """Serve a web page and an HTTP API that classify pictures.

    \b
    /             the page                     /api/v1/classify  answers as JSON
    /model/NAME   details of a model           /v2/...           the Open Inference Protocol (KServe)
    /api/docs     documentation of the API     /metrics          for Prometheus

    Ctrl-C and SIGTERM answer the requests in progress, then stop. When a bundle is replaced in its folder, or on
    SIGHUP, the new bundle is loaded beside the old one and replaces it. A new bundle that fails its self-test is
    refused, and the old one stays in use.

    Every option can be given as CANONISTIA_SERVE_ and its name (CANONISTIA_SERVE_PORT=8080; several models are
    separated by spaces), and in a file (--config). The command line comes first, then the environment, then the file.
    """
    source = click.get_current_context().get_parameter_source
    if options["bind"] and ParameterSource.COMMANDLINE in (source("host"), source("port")):
        raise click.UsageError("--bind takes the place of --host and --port; give one or the other")
    given = ServeOptions(**options)
    if given.api_key_file and "*" in given.allowed_origins:
        raise click.UsageError("--allow-origin '*' lets every site use the keys of its visitors; name the origins")
    keyring = _keyring(given.api_key_file)
    listener = _listener(given)  # first: a port in use is said before any model is read
    with listener.socket:
        if given.debug and given.workers > 1:
            raise click.UsageError("--debug runs one process; leave out --workers, or --debug")
        if given.debug and given.grpc_port:
            raise click.UsageError("--debug serves HTTP alone; leave out --grpc-port, or --debug")
        if given.debug and not listener.is_local:
            raise click.UsageError(
                f"--debug shows code to whoever reaches {given.bind or given.host}; use it with --host 127.0.0.1, or "
                "leave it out"
            )
        _serve(given, given.settings(keyring, listener.names), listener)


def _listener(options: ServeOptions) -> "Listener":
    from webapp.serving.listening import inherited_listener, listen, listen_at_path

    inherited = inherited_listener()
    if inherited:
        return inherited
    return listen_at_path(options.bind) if options.bind else listen(options.host, options.port)


def _serve(options: ServeOptions, settings: Settings, listener: "Listener") -> None:
    _leave_lost_folder()
    from cascade.bundle.lookup import find_bundle
    from cascade.bundle.precision import precise_folder
    from cascade.bundle.reading import read_bundle
    from webapp.requests.corrections import prepare_folder
    from webapp.requests.logs import configure, greet
    from webapp.server import Server
    from webapp.serving.grpc_port import GrpcPort
    from webapp.serving.limits import check_memory, check_names, check_workers, machine_memory
    from webapp.serving.master_memory import Shared
    from webapp.serving.rate_storage import check_storage, shared_rates
    from webapp.serving.reloading import Reloader

    if options.rate_storage:
        check_storage(options.rate_storage)
    grpc_port = GrpcPort(options.host, options.grpc_port) if options.grpc_port else None
    # Read before the worker starts, so that a damaged bundle gives one error message and not a worker that dies.
    folders = [precise_folder(find_bundle(model), options.precision) for model in options.models]
    manifests = [read_bundle(folder).manifest for folder in folders]
    check_names([manifest.name for manifest in manifests])
    if options.memory_bytes:
        check_memory(manifests, options.memory_bytes, options.workers)
    check_workers(manifests[0], options.workers, machine_memory())
    if options.collect:
        prepare_folder(options.collect)
    reloader = Reloader(settings.keyring)
    logger = configure(options.log)
    if options.api_key_file and options.api_key_file.stat().st_mode & stat.S_IROTH:
        _LOG.warning("every user of this machine can read %s; chmod 600 it", options.api_key_file)

    def create(shared: Shared) -> "Flask":
        # Imported in a worker only: the runtime starts threads at import, and threads do not survive a fork.
        from webapp.app import create_app
        from webapp.requests.corrections import Collector
        from webapp.serving.metrics import Metrics
        from webapp.serving.service import Service

        metrics = Metrics(shared.processes)
        memory = options.memory_bytes and options.memory_bytes // options.workers
        service = Service(folders, metrics, threads=options.threads, memory=memory, workers=options.workers)
        reloader.start(service)
        collector = Collector(options.collect, options.max_collect * MB, shared.held) if options.collect else None
        rates = shared_rates(options.rate_storage, shared.rates) if options.rate_storage else shared.rates
        app = create_app(service, metrics, settings, collector, rates)
        if grpc_port:
            from webapp.grpc_server import GrpcServer

            grpc_port.start(GrpcServer(app, settings))
        return app

    names = ", ".join(printable(manifest.name) for manifest in manifests)
    beside = f" and, for gRPC, {grpc_port.address}" if grpc_port else ""
    greet(options.log, f"serving {names} at {listener.address}{beside}  (Ctrl-C stops)")
    if options.debug:
        listener.socket.close()
        create(Shared()).run(options.host, options.port, debug=True, use_reloader=False)
    else:
        Server(create, reloader, settings, logger, listener, grpc_port).run()


def _leave_lost_folder() -> None:
    """Leave a current folder that was deleted: gunicorn cannot be imported there."""
    try:
        Path.cwd()
    except OSError:
        os.chdir("/")


def _keyring(path: Path | None) -> Keyring:
    try:
        return Keyring(read_keys(path), path) if path else Keyring()
    except KeysError as error:
        raise click.BadParameter(str(error), param_hint="--api-key-file") from error
