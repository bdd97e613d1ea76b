"""Recording: what every training writes after each epoch and at its end, to disk and to the tracker."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import click
import msgspec
from torch import nn

from cascade.files import write_json, write_text
from trainers.runs.checkpoint import load_state
from trainers.runs.curves import plot_curves
from trainers.runs.evaluated import Evaluated
from trainers.runs.folder import STATE, SUMMARY, Metrics, Sidecar, save_checkpoint, write_metrics
from trainers.runs.tracking import Tracker, checkpoint_artifact, data_artifact

WORST = 24  # how many mistakes are kept with their pictures


@dataclass
class RunRecord:
    """One run's record, on disk and at the tracker; a context manager that closes both.

    A resumed run keeps the metrics of the epochs that its saved state has, and no others.
    """

    folder: Path
    sidecar: Sidecar
    tracker: Tracker
    best_by: str
    group: str
    quiet: bool = False

    def __post_init__(self) -> None:
        state = load_state(self.folder)
        self._rows: list[dict[str, float]] = state.history if state else []
        self.tracker.uses(data_artifact(self.sidecar.data_fingerprint, self.sidecar.classes))

    def __enter__(self) -> Self:
        return self

    def epoch(self, row: dict[str, float], network: nn.Module) -> None:
        """Write the row of metrics, the checkpoint ``last`` and, after the best epoch so far, ``best``."""
        sidecar = msgspec.structs.replace(self.sidecar, epoch=int(row["epoch"]))
        tensors = network.state_dict()
        before = max((self._score(earlier) for earlier in self._rows), default=None)
        self._rows.append(row)
        write_metrics(self.folder, self._rows)
        save_checkpoint(self.folder, "last", tensors, sidecar)
        if before is None or self._score(row) > before:
            save_checkpoint(self.folder, "best", tensors, sidecar)
        self.tracker.log(row)
        if not self.quiet:
            click.echo("  ".join(_column(name, value) for name, value in row.items()), err=True)

    def evaluation(self, evaluated: Evaluated) -> None:
        """Write and send the trained network's results on the validation pictures."""
        counts = {"classes": list(evaluated.classes), "pictures": evaluated.confusion().tolist()}
        write_json(self.folder / "confusion.json", counts)
        _write_rows(self.folder / "by_class.csv", [asdict(figures) for figures in evaluated.by_class()])
        _write_rows(self.folder / "mistakes.csv", [asdict(mistake) for mistake in evaluated.mistakes(WORST)])
        plot_curves(self.folder, self._rows, self.folder.name)
        self.tracker.evaluation(evaluated, self.folder / "curves.png", WORST)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        summary = self._summary()
        if error is not None and self._rows:
            plot_curves(self.folder, self._rows, self.folder.name)
        if error is None:
            self.tracker.makes(checkpoint_artifact(self.folder, self.group))
            write_json(self.folder / SUMMARY, summary)
            (self.folder / STATE).unlink(missing_ok=True)  # a finished run is not resumed
        line = self.tracker.finish(summary, failed=error is not None)
        if line and not self.quiet:
            click.echo(line, err=True)

    def _score(self, row: Metrics) -> float:
        return row[f"validation_{self.best_by}"]

    def _summary(self) -> dict[str, float]:
        if not self._rows:
            return {}
        best = max(self._rows, key=self._score)
        return {
            "epochs": self._rows[-1]["epoch"],
            "best_epoch": best["epoch"],
            f"best_{self.best_by}": self._score(best),
        }


def _write_rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    text = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, text.getvalue())


def _column(name: str, value: float) -> str:
    return f"{name} {value:.0f}" if name in ("epoch", "pictures_per_second", "seconds") else f"{name} {value:.4g}"
