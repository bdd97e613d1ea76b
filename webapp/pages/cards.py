"""Cards: what the page shows about each picture."""

from dataclasses import dataclass

import numpy as np

from cascade.inference.engine import Engine
from cascade.rules.unsure import doubtfulness
from webapp.pages.heatmaps import data_uri, evidence, heat_picture
from webapp.requests.answers import Answer, Refused

_MAP_SIZE = 400  # pixels


@dataclass(frozen=True)
class Card:
    """One answer with its pictures as data: addresses.

    ``main_share`` is the main model's highest probability; ``hesitated`` is true if it was not sure enough, which is
    not the only reason to run the submodels. ``submodels`` holds the probabilities of the submodels of the two classes
    shown, if they were run; ``recognised`` is false if every submodel that was run rejected the picture. ``maps`` is
    empty if the bundle gives no activation maps. ``token`` identifies the picture in a correction; None if no
    corrections are collected.
    """

    answer: Answer
    preview: str
    maps: tuple[str, ...]
    main_share: float
    hesitated: bool
    submodels: dict[str, float]
    recognised: bool
    token: str | None

    @property
    def bars(self) -> tuple[tuple[str, float], tuple[str, float]]:
        """Return both classes with their probabilities, most likely first."""
        prediction = self.answer.prediction
        return (
            (prediction.label_1, prediction.probability_1),
            (prediction.label_2, prediction.probability_2),
        )


def card_of(answer: Answer, engine: Engine, token: str | None) -> Card:
    """Return the card of an answer given by an engine."""
    assert answer.preview is not None  # the page always requests it
    manifest, outcome, prediction = engine.bundle.manifest, answer.outcome, answer.prediction
    shown = (prediction.label_1, prediction.label_2)
    submodels = {label: float(outcome.submodels[engine.classes.index(label)]) for label in shown}
    return Card(
        answer=answer,
        preview=data_uri(answer.preview),
        maps=maps_of(answer, engine),
        main_share=float(outcome.main.max()),
        hesitated=bool(manifest.rules.routing.hesitates(outcome.main[np.newaxis])[0]),
        submodels={label: share for label, share in submodels.items() if not np.isnan(share)},
        recognised=bool(manifest.rules.unsure.recognised(outcome.submodels[np.newaxis])[0]),
        token=token,
    )


def maps_of(answer: Answer, engine: Engine) -> tuple[str, ...]:
    """Return where the main model sees the two classes, as data: addresses; empty if no maps were made."""
    if answer.preview is None or answer.outcome.maps is None:
        return ()
    spec = engine.bundle.manifest.main.preprocess
    pictures = (heat_picture(answer.preview, part, spec) for part in evidence(answer.outcome.maps))
    return tuple(data_uri(picture, _MAP_SIZE) for picture in pictures)


def doubt_of(answer: Answer | Refused) -> float:
    """Return the sort key of an answer by doubt; the most doubtful has the highest, a refused picture the lowest."""
    if isinstance(answer, Refused):
        return -1.0
    said = answer.prediction
    return doubtfulness(said.unsure, said.probability_1, said.probability_2)
