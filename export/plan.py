"""What is exported, and how."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportPlan:
    """What is exported: the runs, the data set of both, and the bundle to write."""

    main_run: Path
    subs: Path
    data: Path
    out: Path
    checkpoint: str = "last"
    budget: float = 1.5  # mean cost of a picture, in passes of the main model
    false_alarm_rate: float = 0.02
    seed: int = 0
    overwrite: bool = False
