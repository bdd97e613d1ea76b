"""The plot of a training's curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_curves(folder: Path, rows: Sequence[Mapping[str, float]], title: str) -> None:
    """Draw the run's curves into ``curves.png``: losses left, the validation scores right."""
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(9, 3.6))
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.14, top=0.88)  # an automatic layout draws everything twice
    for key in rows[0]:
        axes = losses if key.endswith("loss") else scores
        if key.startswith(("training_", "validation_")):
            axes.plot(epochs, [row[key] for row in rows], label=key.replace("_", " "))
    for axes, name in ((losses, "loss"), (scores, "score")):
        axes.set(xlabel="epoch", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(folder / "curves.png", dpi=110)
