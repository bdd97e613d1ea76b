"""The options of an export."""

from dataclasses import dataclass
from pathlib import Path

BUDGET = 1.5
FALSE_ALARM_RATE = 0.02
BOTH_RATE = 0.02


@dataclass(frozen=True)
class ExportPlan:
    """What to export: the runs, the data set that they were trained on, and the bundle to write."""

    main_run: Path
    subs: Path
    data: Path
    out: Path
    checkpoint: str = "last"
    cross_fit: bool = False  # heads are trained in folds on all pictures, and none is held out
    budget: float = BUDGET  # highest mean cost per picture, in passes of the main model
    false_alarm_rate: float = FALSE_ALARM_RATE
    both_rate: float = BOTH_RATE
    accept: float | None = None  # accuracy of accepted answers that is promised
    seed: int = 0
    overwrite: bool = False
    notes: Path | None = None  # Markdown that the model card ends with
