"""The page: complete without JavaScript, and in fragments for htmx."""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from flask import Blueprint, render_template, request

from cascade.images.formats import SUFFIXES
from cascade.outputs.rows import csv_lines
from cascade.terminal import printable
from webapp.pages.cards import Card, card_of, doubt_ranks
from webapp.pages.cells import as_cells
from webapp.pages.heatmaps import legend
from webapp.pages.model_facts import class_facts, shades
from webapp.pages.texts import LANGUAGES, Texts, texts
from webapp.problems import Problem
from webapp.requests.answers import Answer, Refused
from webapp.requests.state import state
from webapp.requests.uploads import classify_sources, sent_files
from webapp.serving.service import Served
from webapp.settings import MB

page = Blueprint("page", __name__)
page.add_app_template_global(zip)
page.add_app_template_filter(printable)


@dataclass(frozen=True)
class _Place:
    """A card, its position in both orders, and its line of the CSV file without the line break."""

    card: Card | Refused
    sent: int
    doubt: int
    line: str


@page.get("/")
def form() -> str:
    """Return the empty form."""
    return _form_page(model=request.args.get("model"))


@page.post("/")
def classify() -> tuple[str, int]:
    """Answer about the pictures that were sent."""
    order, model = request.form.get("order", "sent"), request.form.get("model")
    sources = sent_files()
    with state().service.use(model) as served:
        answers = classify_sources(served, sources, explain=True)
        header, *lines = (line.removesuffix("\r\n") for line in csv_lines(as_cells(answer.row) for answer in answers))
        cards = [answer if isinstance(answer, Refused) else _card(answer, served) for answer in answers]
        ranks = doubt_ranks(answers)
        places = [_Place(*parts) for parts in zip(cards, range(len(cards)), ranks, lines, strict=True)]
        if order == "doubt":
            places.sort(key=lambda place: place.doubt)
        refused = [answer.problem for answer in answers if isinstance(answer, Refused)]
        context = {
            "places": places,
            "header": header,
            "csv": _csv_address([header, *(place.line for place in places)]),
            "unsure": sum(not isinstance(answer, Refused) and answer.prediction.unsure for answer in answers),
            "refused": len(refused),
            "legend": legend(),
            "manifest": served.manifest,
        }
        body = render_template("_answers.html", **context) if _for_htmx() else _form_page(model, order, **context)
    return body, refused[0].status if len(refused) == len(answers) else 200


@page.post("/corrections")
def correct() -> str:
    """Store the true class of a picture, as a visitor entered it."""
    collector = state().collector
    if collector is None:
        raise Problem("not_found", "This service collects no corrections; start it with --collect.")
    label = request.form.get("label", "")
    collector.save(request.form.get("token", ""), label)
    return render_template("_thanks.html" if _for_htmx() else "thanks.html", label=label)


@page.get("/model/<name>")
def model(name: str) -> str:
    """Return the page about a bundle: its accuracy, its classes, its errors, and its calibration."""
    bundle = state().service.bundle(name)
    return render_template(
        "model.html",
        model=name,
        manifest=bundle.manifest,
        classes=class_facts(bundle.manifest),
        shades=shades(bundle.manifest.measured.confusion),
        size=sum(file.size for file in bundle.manifest.files),
        card=bundle.card(),
    )


def problem_page(problem: Problem) -> str:
    """Return the page about a problem: for htmx only the message, and with the form if pictures were sent."""
    if _for_htmx():
        return render_template("_problem.html", problem=problem)
    if problem.kind == "host":  # under an untrusted host name, Flask builds no addresses
        return render_template("bare.html", problem=problem)
    if request.endpoint == "page.classify":
        return _form_page(problem=problem)
    return render_template("problem.html", problem=problem)


def _card(answer: Answer, served: Served) -> Card:
    collector = state().collector
    return card_of(answer, served.engine, collector.offer(answer, served) if collector else None)


def _csv_address(lines: Iterable[str]) -> str:
    return "data:text/csv;charset=utf-8," + quote("".join(f"{line}\r\n" for line in lines))


def _form_page(model: str | None = None, order: str = "sent", **context: object) -> str:
    return render_template(
        "page.html",
        model=model if model in state().service.names else state().service.default,
        order=order,
        accept=",".join(sorted(SUFFIXES)),
        megabytes=state().settings.max_upload_bytes // MB,
        max_pictures=state().settings.max_pictures,
        **context,
    )


@page.app_context_processor
def _frame() -> dict[str, object]:
    """Return the values that every page needs."""
    chosen = request.args.get("lang")
    current = state()
    return {
        "t": _texts(chosen),
        "lang": chosen if chosen in LANGUAGES else None,
        "languages": [texts(language) for language in LANGUAGES],
        "bundles": list(zip(current.service.names, current.service.manifests(), strict=True)),
        "model": current.service.default,
        "collecting": current.collector is not None,
    }


def _texts(chosen: str | None) -> Texts:
    if chosen in LANGUAGES:
        return texts(chosen)
    return texts(request.accept_languages.best_match(LANGUAGES) or LANGUAGES[0])


def _for_htmx() -> bool:
    return "HX-Request" in request.headers
