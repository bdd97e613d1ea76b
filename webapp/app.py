"""The Flask application: one page that classifies the pictures sent to it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Flask, Response, render_template, request
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from cascade.engine import Engine, decoded_batches, readable
from cascade.errors import PictureError
from cascade.picture import SUFFIXES
from cascade.prediction import Prediction

MAX_UPLOAD_BYTES = 64 * 1024 * 1024
MAX_PICTURES = 100
_PREVIEW_SIDE = 320  # pixels

# Everything comes from this server; previews are data: addresses.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Card:
    """What the page shows of one upload: its preview and answer, or its error."""

    name: str
    preview: str = ""
    prediction: Prediction | None = None
    error: str = ""


def create_app(engine: Engine) -> Flask:
    """Return the application for an engine."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_UPLOAD_BYTES
    app.config["MAX_FORM_PARTS"] = MAX_PICTURES + 1

    @app.get("/")
    def page() -> str:
        return _page(engine, [])

    @app.post("/")
    def classify() -> tuple[str, int] | str:
        uploads = [upload for upload in request.files.getlist("pictures") if upload.filename]
        if not uploads:
            return _page(engine, [], "Choose a picture first."), 400
        return _page(engine, classify_uploads(engine, uploads))

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_: RequestEntityTooLarge) -> tuple[str, int]:
        limit = MAX_UPLOAD_BYTES // 2**20
        return _page(engine, [], f"Too much at once: at most {MAX_PICTURES} pictures and {limit} MB together."), 413

    @app.after_request
    def headers(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    return app


def classify_uploads(engine: Engine, uploads: Sequence[FileStorage]) -> list[Card]:
    """Return a card for each upload, in order; one that is no picture does not stop the others."""
    cards: list[Card] = []
    names = iter([upload.filename or "picture" for upload in uploads])
    for batch in decoded_batches(upload.read() for upload in uploads):
        pictures = readable(batch)
        predictions = iter(engine.predictions(engine.run(pictures)) if pictures else ())
        for _, picture in batch:
            if isinstance(picture, PictureError):
                cards.append(Card(next(names), error=f"This file {picture}."))
            else:
                cards.append(Card(next(names), _preview(picture), next(predictions)))
    return cards


def _preview(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def _page(engine: Engine, cards: list[Card], message: str = "") -> str:
    return render_template(
        "page.html",
        bundle=engine.bundle.manifest,
        cards=cards,
        message=message,
        accept=",".join(sorted(SUFFIXES)),
    )
