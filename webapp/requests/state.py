"""State: the parts of an application, found from within a request."""

from dataclasses import dataclass

from flask import current_app

from webapp.requests.admission import Admission
from webapp.requests.corrections import Collector
from webapp.requests.decoding_lanes import DecodingLanes
from webapp.serving.metrics import Metrics
from webapp.serving.service import Service
from webapp.settings import Settings

KEY = "canonistia"


@dataclass(frozen=True)
class State:
    """The parts of an application."""

    service: Service
    settings: Settings
    metrics: Metrics
    admission: Admission
    decoding: DecodingLanes
    collector: Collector | None


def state() -> State:
    """Return the state of the current application."""
    found: State = current_app.extensions[KEY]
    return found
