"""The serve command."""

from typing import TYPE_CHECKING

import click

from cascade.cli import model_option, threads_option

if TYPE_CHECKING:
    from flask import Flask


@click.command()
@model_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for the network.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
@threads_option
def serve(model: str, host: str, port: int, threads: int | None) -> None:
    """Serve a page where pictures are uploaded and named. Ctrl-C stops it."""
    from cascade.bundle import find_bundle, read_bundle
    from webapp.server import Server

    # Read here, so that a damaged bundle is one sentence and not a worker that dies.
    bundle = read_bundle(find_bundle(model))

    def create() -> "Flask":
        # Only in the worker: the runtime starts threads when it is imported, and a fork does not take them along.
        from cascade.engine import Engine
        from webapp.app import create_app

        engine = Engine(bundle, threads)
        engine.open_all()
        return create_app(engine)

    click.echo(f"serving {bundle.manifest.name} at http://{host}:{port}  (Ctrl-C stops)", err=True)
    Server(create, host, port).run()
