from typing import Literal

import click

from cascade.errors import CanonistiaError as CanonistiaError
from cascade.inference.engine import Engine as Engine
from cascade.inference.prediction import Prediction as Prediction

main: click.Group

def load(
    model: str = "scene15", threads: int | None = None, precision: Literal["float", "int8", "auto"] = "float"
) -> Engine: ...
