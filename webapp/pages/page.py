"""The page: complete without JavaScript, and in fragments for its scripts."""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from flask import Blueprint, render_template, request

from cascade.images.decoding import Source
from cascade.images.formats import SUFFIXES
from cascade.outputs.rows import csv_lines
from cascade.terminal import printable
from webapp.pages.cards import Card, card_of, doubt_of, maps_of
from webapp.pages.cells import as_cells
from webapp.pages.heatmaps import legend
from webapp.pages.model_facts import class_facts, of_hundred, shades
from webapp.pages.samples import sample_picture, samples_for
from webapp.pages.texts import LANGUAGES, Texts, script_texts, texts
from webapp.problems import Problem
from webapp.requests.answers import Answer, Refused
from webapp.requests.state import state
from webapp.requests.uploads import Illustration, classify_sources, sent_files
from webapp.serving.service import Served
from webapp.settings import MB

page = Blueprint("page", __name__)
page.add_app_template_global(zip)
page.add_app_template_filter(printable)

_SHOWN_CLASSES = (30, 12)  # under the heading, of a model that is alone, and of each of several


@dataclass(frozen=True)
class _Place:
    """A card, its position as sent, how doubtful it is, and its line of the CSV file without the line break."""

    card: Card | Refused
    sent: int
    doubt: float
    line: str


@page.get("/")
def form() -> str:
    """Return the empty form."""
    return _form_page(model=request.args.get("model"))


@page.post("/")
def classify() -> tuple[str, int]:
    """Answer about the pictures that were sent: a whole page, or the cards alone for the page's script."""
    order, model = request.form.get("order", "sent"), request.form.get("model")
    sources = _sources()
    with state().service.use(model) as served:
        answers = classify_sources(served, sources, Illustration(preview=True, maps=not _for_script()))
        header, *lines = _csv_lines(answers)
        cards = [answer if isinstance(answer, Refused) else _card(answer, served) for answer in answers]
        doubts = [doubt_of(answer) for answer in answers]
        places = [_Place(*parts) for parts in zip(cards, range(len(cards)), doubts, lines, strict=True)]
        if order == "doubt":
            places.sort(key=lambda place: -place.doubt)
        refused = [answer.problem for answer in answers if isinstance(answer, Refused)]
        predictions = [answer.prediction for answer in answers if not isinstance(answer, Refused)]
        context = {
            "places": places,
            "csv": _csv_address([header, *(place.line for place in places)]),
            "both": sum(prediction.both for prediction in predictions),
            "unsure": sum(prediction.unsure for prediction in predictions),
            "refused": len(refused),
            "legend": legend(),
            "manifest": served.manifest,
            "maps_later": _for_script(),
        }
        body = render_template("_cards.html", **context) if _for_script() else _form_page(model, order, **context)
    return body, refused[0].status if len(refused) == len(answers) else 200


@page.post("/maps")
def maps() -> str:
    """Return where the main model sees the two classes of a picture, which is sent again when somebody wants to know.

    A fragment for the page's script; without scripts the maps are in the answer.
    """
    sources = _sources()[:1]
    with state().service.use(request.form.get("model")) as served:
        (answer,) = classify_sources(served, sources, Illustration(preview=True, maps=True))
        if isinstance(answer, Refused):
            raise answer.problem
        prediction = answer.prediction
        return render_template(
            "_maps.html",
            maps=maps_of(answer, served.engine),
            bars=[(prediction.label_1, prediction.probability_1), (prediction.label_2, prediction.probability_2)],
            name=answer.name,
            legend=legend(),
            manifest=served.manifest,
        )


@page.post("/corrections")
def correct() -> str:
    """Store the true class of a picture, as a visitor entered it."""
    collector = state().collector
    if collector is None:
        raise Problem("not_found", "This service collects no corrections; start it with --collect.")
    label = request.form.get("label", "")
    collector.save(request.form.get("token", ""), label)
    return render_template("_thanks.html" if _for_script() else "thanks.html", label=label)


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
        of_hundred=of_hundred,
        size=sum(file.size for file in bundle.manifest.files),
        card=bundle.card(),
    )


def problem_page(problem: Problem) -> str:
    """Return the page about a problem: for scripts only the message, and with the form if pictures were sent."""
    if _for_script():
        return render_template("_problem.html", problem=problem)
    if problem.kind == "host":  # under an untrusted host name, Flask builds no addresses
        return render_template("bare.html", problem=problem)
    if request.endpoint == "page.classify":
        return _form_page(problem=problem)
    return render_template("problem.html", problem=problem)


def _sources() -> list[tuple[str, Source]]:
    """Return the pictures of the form, and the samples chosen in it."""
    samples: list[tuple[str, Source]] = [sample_picture(name) for name in request.form.getlist("sample")]
    has_files = any(upload.filename for _, upload in request.files.items(multi=True))
    return [*samples, *(sent_files() if has_files or not samples else [])]


def _card(answer: Answer, served: Served) -> Card:
    collector = state().collector
    return card_of(answer, served.engine, collector.offer(answer, served) if collector else None)


def _csv_lines(answers: Iterable[Answer | Refused]) -> list[str]:
    return [line.removesuffix("\r\n") for line in csv_lines(as_cells(answer.row) for answer in answers)]


def _csv_address(lines: Iterable[str]) -> str:
    return "data:text/csv;charset=utf-8," + quote("".join(f"{line}\r\n" for line in lines))


def _form_page(model: str | None = None, order: str = "sent", **context: object) -> str:
    service, settings = state().service, state().settings
    chosen = model if model is not None and model in service.names else service.default
    alone, several = _SHOWN_CLASSES
    return render_template(
        "page.html",
        model=chosen,
        order=order,
        accept=",".join(sorted(SUFFIXES)),
        header=_csv_lines(())[0],
        samples=samples_for(service.bundle(chosen).manifest.classes),
        shown_classes=alone if len(service.names) == 1 else several,
        max_bytes=settings.max_upload_bytes,
        megabytes=settings.max_upload_bytes // MB,
        max_pictures=settings.max_pictures,
        **context,
    )


@page.app_context_processor
def _frame() -> dict[str, object]:
    """Return the values that every page needs."""
    chosen = request.args.get("lang")
    current = state()
    language = _texts(chosen)
    return {
        "t": language,
        "script_texts": script_texts(language, current.settings.max_upload_bytes // MB),
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


def _for_script() -> bool:
    """Return whether a script asks for a part of a page; htmx also asks for whole ones, when pages change."""
    whole = "HX-Boosted" in request.headers or "HX-History-Restore-Request" in request.headers
    return "HX-Request" in request.headers and not whole
