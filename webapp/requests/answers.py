"""Answers: what a request gets back about each of its pictures."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from cascade.inference.prediction import Prediction
from cascade.outputs.rows import Row
from webapp.problems import Problem
from webapp.serving.batcher import Outcome

PREVIEW_SIDE = 640  # pixels


@dataclass(frozen=True)
class Answer:
    """What the cascade says of one picture; K classes, in the order of the bundle's."""

    name: str  # the file's, as it was sent
    prediction: Prediction
    scores: np.ndarray  # (K,) final probabilities
    main: np.ndarray  # (K,) calibrated probabilities of the main model
    submodels: np.ndarray  # (K,) calibrated answers, NaN where not asked
    doubt: float  # above 1: unsure
    maps: np.ndarray | None  # (2, h, w) activation maps of label_1 and label_2
    preview: Image.Image | None  # upright, at most PREVIEW_SIDE pixels a side

    @property
    def row(self) -> Row:
        """Return the answer as a row of ``canonistia classify``."""
        return Row(self.name, **asdict(self.prediction))


@dataclass(frozen=True)
class Refused:
    """A picture that got no answer."""

    name: str
    problem: Problem

    @property
    def row(self) -> Row:
        """Return the refusal as a row of ``canonistia classify``."""
        return Row(self.name, error=self.problem.reason)


def answer_of(name: str, outcome: Outcome, preview: Image.Image | None) -> Answer:
    """Return the answer made of an outcome."""
    return Answer(
        name,
        outcome.prediction,
        outcome.scores,
        outcome.main,
        outcome.submodels,
        outcome.doubt,
        outcome.maps,
        preview,
    )


def scores_of(answer: Answer, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return every probability by class: final, the main model's, the submodels' (None where not asked)."""

    def by_class(values: np.ndarray) -> dict[str, float | None]:
        return {label: None if np.isnan(value) else float(value) for label, value in zip(classes, values, strict=True)}

    return {
        "scores": by_class(answer.scores),
        "main": by_class(answer.main),
        "submodels": by_class(answer.submodels),
        "doubt": answer.doubt,
    }
