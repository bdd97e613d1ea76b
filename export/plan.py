"""What is exported, and how."""

from dataclasses import dataclass
from pathlib import Path

BUDGET = 1.5
FALSE_ALARM_RATE = 0.02


@dataclass(frozen=True)
class ExportPlan:
    """What is exported: the runs, the data set of both, and the bundle to write."""

    main_run: Path
    subs: Path
    data: Path
    out: Path
    checkpoint: str = "last"
    budget: float = BUDGET  # mean cost of a picture, in passes of the main model
    false_alarm_rate: float = FALSE_ALARM_RATE
    seed: int = 0
    overwrite: bool = False
