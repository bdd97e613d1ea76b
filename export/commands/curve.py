"""The plot of accuracy against mean cost."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cascade.bundle.manifest import Measured
from cascade.errors import CanonistiaError
from cascade.evaluation.metrics import top_k_hits
from export.fitting.decisions import DECISIONS
from export.fitting.routing import ROUTINGS
from export.fitting.selection import Compared, Terms


def check_picture_name(path: Path) -> None:
    """Raise CanonistiaError unless the name ends in .png."""
    if path.suffix.lower() != ".png":
        raise CanonistiaError(f"{path} ends in '{path.suffix}', expected '.png'; give a name that ends in .png")


def draw_curve(compared: list[Compared], targets: np.ndarray, terms: Terms, measured: Measured, path: Path) -> None:
    """Draw top-1 accuracy against mean cost in main passes: one panel per decision rule, one line per routing rule.

    All points are out of fold. Each line runs from the main model alone to the second stage on every picture. The
    cross is the bundle itself, measured by nested cross-validation.

    Raises
    ------
    CanonistiaError
        The file cannot be written.
    """
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, decision in zip(figure.subplots(1, len(DECISIONS), sharey=True), DECISIONS, strict=True):
        for routing in ROUTINGS:
            entries = [e for e in compared if e.share == 0 or (e.routing, e.decision) == (routing, decision)]
            if len(entries) > 1:
                costs = [terms.cost(entry.routed) for entry in entries]
                accuracies = [100 * top_k_hits(entry.probabilities, targets)[0].mean() for entry in entries]
                axes.plot(costs, accuracies, marker=".", linewidth=1.2, label=routing)
        axes.plot(measured.cost, 100 * measured.cascade.top1, "kx", markersize=9, label="this bundle")
        axes.axvline(terms.budget, color="0.7", linewidth=1, linestyle=":")
        axes.axhline(100 * measured.submodels.top1, color="0.6", linewidth=1, linestyle="--", label="submodels alone")
        axes.set(title=decision, xlabel="mean cost, main passes")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("top 1, %")
    figure.axes[-1].legend(frameon=False, fontsize=8, loc="lower right")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise CanonistiaError(f"{path} cannot be written ({error.strerror}); the bundle itself was tuned") from error
