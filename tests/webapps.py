"""Applications for small bundles, and requests for Flask's test client."""

import io
from concurrent.futures import Future
from pathlib import Path

from flask import Flask
from PIL import Image

from cascade.images.view import View
from webapp.app import create_app
from webapp.requests.corrections import Collector
from webapp.serving.batcher import Batcher, Outcome
from webapp.serving.metrics import Metrics
from webapp.serving.service import Service
from webapp.settings import Settings


def application(
    *bundles: Path, settings: Settings | None = None, memory: int | None = None, collector: Collector | None = None
) -> Flask:
    """Return an application that serves bundles."""
    metrics = Metrics()
    return create_app(Service(bundles, metrics, memory=memory), metrics, settings, collector)


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def upload(*files: tuple[bytes, str], field: str = "file") -> dict[str, list[tuple[io.BytesIO, str]]]:
    """Return the form data that sends files."""
    return {field: [(io.BytesIO(data), name) for data, name in files]}


def submitted(batcher: Batcher, view: View, inline: bool = False) -> "Future[Outcome]":
    """Return the future answer for a picture that is already decoded."""
    with batcher.reserve() as reservation:
        return reservation.submit(view, inline=inline)
