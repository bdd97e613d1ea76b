from os import PathLike
from typing import Literal

import click

from cascade.errors import CanonistiaError as CanonistiaError
from cascade.inference.engine import Engine as Engine
from cascade.inference.prediction import Prediction as Prediction
from export.commands.fit import Fitted

main: click.Group

def fit(
    photos: str | PathLike[str],
    out: str | PathLike[str],
    minutes: float | None = None,
    test: str | PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Fitted: ...
def load(
    model: str = "scene15", threads: int | None = None, precision: Literal["float", "int8", "auto"] = "float"
) -> Engine: ...
