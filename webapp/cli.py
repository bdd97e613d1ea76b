"""The serve command."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cascade.cli import precision_option, threads_option
from webapp.settings import MB, Settings

if TYPE_CHECKING:
    from flask import Flask

    from cascade.bundle.precision import Precision
    from webapp.requests.logs import LogStyle

_DEFAULT = Settings()
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _checked_rate(_: click.Context, parameter: click.Parameter, rate: str | None) -> str | None:
    if rate is not None:
        from limits import parse_many

        try:
            parse_many(rate)
        except ValueError as error:
            raise click.BadParameter(f"'{rate}' is no rate; expected such as '60/minute'", param=parameter) from error
    return rate


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    default=["scene15"],
    show_default=True,
    help="A bundle's folder, or its name under models/; give it again to serve several. The first is the default.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for the network.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
@click.option("--memory", type=click.IntRange(min=1), help="MB that loaded bundles may take together. Default: any.")
@click.option(
    "--max-upload",
    type=click.IntRange(1, 1024),
    default=_DEFAULT.max_upload_bytes // MB,
    show_default=True,
    help="MB of one request.",
)
@click.option(
    "--max-pictures",
    type=click.IntRange(1, 1000),
    default=_DEFAULT.max_pictures,
    show_default=True,
    help="Pictures of one request.",
)
@click.option(
    "--max-megapixels",
    type=click.IntRange(1, 120),
    default=_DEFAULT.max_pixels // 1_000_000,
    show_default=True,
    help="Millions of pixels of one picture.",
)
@click.option(
    "--queue",
    type=click.IntRange(1, 4096),
    default=_DEFAULT.queue,
    show_default=True,
    help="Pictures in hand at once; what comes on top is told to try again (503).",
)
@click.option(
    "--deadline",
    type=click.FloatRange(0.1, 600),
    default=_DEFAULT.deadline_seconds,
    show_default=True,
    help="Seconds from upload to answer (504 after that).",
)
@click.option(
    "--upload-time",
    type=click.FloatRange(0.5, 3600),
    default=_DEFAULT.upload_seconds,
    show_default=True,
    help="Seconds for a request to arrive (408 after that).",
)
@click.option(
    "--rate",
    callback=_checked_rate,
    metavar="RATE",
    help="Posts from one address, such as '60/minute' (429).",
)
@click.option(
    "--trusted-host",
    "trusted_hosts",
    multiple=True,
    metavar="NAME",
    help="A name under which this server is called; any other is refused. Default: this machine's loopback names "
    "while it listens there, else any.",
)
@click.option("--behind-proxy", is_flag=True, help="Believe one proxy's X-Forwarded-For, -Proto and -Host.")
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ask for one of the keys in this file, one a line: as a Bearer token, X-API-Key, or a browser's password.",
)
@click.option(
    "--collect",
    type=click.Path(file_okay=False, path_type=Path),
    help="Let visitors correct answers; pictures and corrections go into this folder, with a manifest that train-main "
    "and train-sub read. Without it no picture is kept.",
)
@click.option(
    "--max-collect",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="MB of collected pictures.",
)
@click.option(
    "--log",
    type=click.Choice(["off", "text", "json"]),
    default="off",
    show_default=True,
    help="A line for each request on standard error; it names no file and no address.",
)
@click.option("--debug", is_flag=True, help="Flask's development server, which shows tracebacks. Not for use.")
@precision_option
@threads_option
def serve(
    models: tuple[str, ...],
    host: str,
    port: int,
    memory: int | None,
    max_upload: int,
    max_pictures: int,
    max_megapixels: int,
    queue: int,
    deadline: float,
    upload_time: float,
    rate: str | None,
    trusted_hosts: tuple[str, ...],
    behind_proxy: bool,
    api_key_file: Path | None,
    collect: Path | None,
    max_collect: int,
    log: "LogStyle",
    debug: bool,
    precision: "Precision",
    threads: int | None,
) -> None:
    """Serve a page where pictures are uploaded and named, and an API for programs.

    \b
    /             the page                      /api/v1/classify  answers as JSON
    /model/NAME   what is known of a model      /v2/...           the Open Inference Protocol (KServe)
    /api/docs     the API, described            /metrics          for Prometheus

    Ctrl-C and SIGTERM answer what is in hand and stop. A bundle that is replaced in its folder, or SIGHUP, loads the
    new one beside the old and swaps them; a new one that fails its self-test is refused, and the old one goes on.
    """
    from cascade.bundle.lookup import find_bundle
    from cascade.bundle.precision import precise_folder
    from cascade.bundle.reading import read_bundle
    from webapp.requests.corrections import Collector
    from webapp.requests.logs import configure
    from webapp.server import Server
    from webapp.serving.limits import check_memory
    from webapp.serving.reloading import Reloader

    settings = Settings(
        max_upload_bytes=max_upload * MB,
        max_pictures=min(max_pictures, queue),
        max_pixels=max_megapixels * 1_000_000,
        queue=queue,
        deadline_seconds=deadline,
        upload_seconds=upload_time,
        rate=rate,
        api_keys=_keys(api_key_file) if api_key_file else (),
        trusted_hosts=trusted_hosts or (_LOOPBACK if host in _LOOPBACK else ()),
        behind_proxy=behind_proxy,
    )
    # Read here, so that a damaged bundle is one sentence and not a worker that dies.
    folders = [precise_folder(find_bundle(model), precision) for model in models]
    manifests = [read_bundle(folder).manifest for folder in folders]
    if memory:
        check_memory(manifests, memory * MB)
    collector = Collector(collect, max_collect * MB) if collect else None
    reloader = Reloader()
    logger = configure(log)

    def create() -> "Flask":
        # Only in the worker: the runtime starts threads when it is imported, and a fork does not take them along.
        from webapp.app import create_app
        from webapp.serving.metrics import Metrics
        from webapp.serving.service import Service

        metrics = Metrics()
        bound = memory * MB if memory else None
        service = Service(folders, metrics, threads=threads, memory=bound)
        reloader.start(service)
        return create_app(service, metrics, settings, collector)

    names = ", ".join(manifest.name for manifest in manifests)
    place = f"[{host}]" if ":" in host else host
    click.echo(f"serving {names} at http://{place}:{port}  (Ctrl-C stops)", err=True)
    if debug:
        create().run(host, port, debug=True, use_reloader=False)
    else:
        Server(create, reloader, settings, logger, host, port).run()


def _keys(path: Path) -> tuple[str, ...]:
    keys = tuple(filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())))
    if not all(map(str.isascii, keys)):
        raise click.BadParameter(f"{path} holds a key with letters outside ASCII", param_hint="--api-key-file")
    if not keys:
        raise click.BadParameter(f"{path} holds no key; expected one a line", param_hint="--api-key-file")
    return keys
