"""Answers: what a request gets back about each of its pictures."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from cascade.inference.prediction import Prediction
from cascade.outputs.rows import Row
from webapp.problems import Problem
from webapp.serving.batcher import Outcome

PREVIEW_SIZE = 640  # pixels


@dataclass(frozen=True)
class Answer:
    """The answer about one picture."""

    name: str  # of the file, as it was sent
    outcome: Outcome
    preview: Image.Image | None  # upright, at most PREVIEW_SIZE pixels wide and high

    @property
    def prediction(self) -> Prediction:
        """Return the two most likely classes."""
        return self.outcome.prediction

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


def scores_of(outcome: Outcome, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return all probabilities by class: final, main model, submodels (None where a submodel was not run)."""

    def by_class(values: np.ndarray) -> dict[str, float | None]:
        return {label: None if np.isnan(value) else float(value) for label, value in zip(classes, values, strict=True)}

    return {
        "scores": by_class(outcome.scores),
        "main": by_class(outcome.main),
        "submodels": by_class(outcome.submodels),
        "doubt": outcome.doubt,
    }
