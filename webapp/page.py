"""The page: pictures are uploaded and named."""

import base64
import io

from flask import Blueprint, render_template, request
from PIL import Image

from cascade.picture import SUFFIXES
from webapp.answers import Answer, Refused
from webapp.problems import Problem
from webapp.state import state
from webapp.uploads import classify_uploads

page = Blueprint("page", __name__)


@page.get("/")
def form() -> str:
    """Show the form."""
    return _page([])


@page.post("/")
def classify() -> tuple[str, int]:
    """Answer an upload."""
    with state().service.use(request.form.get("model")) as served:
        answers = classify_uploads(served, explain=True)
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    return _page(answers), refused[0].problem.status if len(refused) == len(answers) else 200


def problem_page(problem: Problem) -> str:
    """Return the page that says why a request was refused."""
    return _page([], problem.detail)


def _page(answers: list[Answer | Refused], message: str = "") -> str:
    return render_template(
        "page.html",
        bundle=state().service.manifests()[0],
        cards=[(answer, _preview(getattr(answer, "preview", None))) for answer in answers],
        message=message,
        accept=",".join(sorted(SUFFIXES)),
    )


def _preview(picture: Image.Image | None) -> str:
    if picture is None:
        return ""
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
