"""Recording: what every training writes after each epoch and at its end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import click
import msgspec
import numpy as np
from sklearn.metrics import confusion_matrix
from torch import nn

from trainers.curves import plot_curves
from trainers.runs import Metrics, Sidecar, append_metrics, read_metrics, save_checkpoint, write_json
from trainers.tracking import Tracker


@dataclass
class RunRecord:
    """One run's record, on disk and at the tracker; a context manager that closes both."""

    folder: Path
    sidecar: Sidecar
    tracker: Tracker
    best_by: str
    quiet: bool = False
    _best: float = field(default=-np.inf, init=False)

    def __enter__(self) -> Self:
        return self

    def epoch(self, row: dict[str, float], network: nn.Module) -> None:
        """Write the row, the checkpoint ``last`` and, after the best epoch so far, ``best``."""
        append_metrics(self.folder, row)
        sidecar = msgspec.structs.replace(self.sidecar, epoch=int(row["epoch"]))
        state = network.state_dict()
        save_checkpoint(self.folder, "last", state, sidecar)
        score = row[f"validation_{self.best_by}"]
        if score > self._best:
            self._best = score
            save_checkpoint(self.folder, "best", state, sidecar)
        self.tracker.log(row)
        if not self.quiet:
            click.echo("  ".join(_column(name, value) for name, value in row.items()), err=True)

    def confusion(self, truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> None:
        """Write ``confusion.json`` (true classes in rows) and send it to the tracker."""
        matrix = confusion_matrix(truth, predicted, labels=np.arange(len(classes)))
        write_json(self.folder / "confusion.json", {"classes": list(classes), "pictures": matrix.tolist()})
        self.tracker.confusion(matrix, classes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = read_metrics(self.folder) if (self.folder / "metrics.csv").exists() else []
        if finished:
            plot_curves(self.folder, finished, self.folder.name)
        line = self.tracker.finish(_summary(finished, self.best_by), failed=error is not None)
        if line and not self.quiet:
            click.echo(line, err=True)


def _summary(rows: Sequence[Metrics], best_by: str) -> dict[str, float]:
    if not rows:
        return {}
    best = max(rows, key=lambda row: row[f"validation_{best_by}"])
    return {"best_epoch": best["epoch"], f"best_{best_by}": best[f"validation_{best_by}"]}


def _column(name: str, value: float) -> str:
    return f"{name} {value:.0f}" if name in ("epoch", "pictures_per_second", "seconds") else f"{name} {value:.4g}"
