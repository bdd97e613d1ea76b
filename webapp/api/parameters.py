"""The parameters of a request to classify: in its query, or as fields of its form."""

import re
from dataclasses import dataclass

from flask import request

from cascade.bundle.manifest import Manifest
from webapp.problems import Problem
from webapp.requests.uploads import FIELDS

NAMES = ("model", "scores", "top_k", "prediction_set")
MAX_TOP_K = 1000
_SHOWN = 40  # characters of what a client sent that an error repeats


@dataclass(frozen=True)
class Parameters:
    """What a client wants to know, and of which model.

    ``model`` is None for the first one served. ``top_k`` is how many of the most likely classes are listed;
    ``coverage`` is that of the wanted prediction set, in (0, 1). Both are None if they are not wanted.
    """

    model: str | None = None
    scores: bool = False
    top_k: int | None = None
    coverage: float | None = None


def read_parameters() -> Parameters:
    """Return the parameters of the current request.

    Raises
    ------
    Problem
        ``malformed``: a parameter is unknown, is given twice with two values, or has a value that it cannot have.
    """
    given = _given()
    return Parameters(
        model=given.get("model") or None,
        scores=_flag("scores", given.get("scores", "false")),
        top_k=_count("top_k", given["top_k"]) if "top_k" in given else None,
        coverage=_share("prediction_set", given["prediction_set"]) if "prediction_set" in given else None,
    )


def limit_of(manifest: Manifest, coverage: float) -> float:
    """Return the fitted limit of a bundle's prediction sets; Problem ``malformed`` for a coverage that it lacks."""
    for name, limit in manifest.prediction_sets.items():
        if float(name) == coverage:
            return limit
    known = ", ".join(manifest.prediction_sets) or "none"
    raise Problem(
        "malformed",
        f"The parameter prediction_set is {coverage:g}; expected a coverage of the model {manifest.name}: {known}.",
    )


def _given() -> dict[str, str]:
    in_form = request.form.items(multi=True) if request.mimetype == "multipart/form-data" else ()
    given: dict[str, str] = {}
    for name, value in [*request.args.items(multi=True), *in_form]:
        if name in FIELDS:
            raise Problem(
                "malformed", f"The field {name} came as text; expected a file; send it as a part that has a file name."
            )
        if name not in NAMES:
            named = (name or "")[:_SHOWN]  # a part of a form may have no name at all
            raise Problem(
                "malformed", f"There is no parameter '{named}'; expected {', '.join(NAMES)}; correct its name."
            )
        if given.setdefault(name, value) != value:
            raise Problem("malformed", f"The parameter {name} is given twice; expected one value; leave one out.")
    return given


def _flag(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise _wrong(name, value, "true or false")
    return value == "true"


def _count(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", value) or not 1 <= int(value) <= MAX_TOP_K:
        raise _wrong(name, value, f"a number from 1 to {MAX_TOP_K}")
    return int(value)


def _share(name: str, value: str) -> float:
    if not re.fullmatch(r"0?\.[0-9]{1,6}", value):
        raise _wrong(name, value, "a coverage such as 0.95")
    return float(value)


def _wrong(name: str, value: str, expected: str) -> Problem:
    return Problem("malformed", f"The parameter {name} is '{value[:_SHOWN]}'; expected {expected}.")
