"""Plots of an evaluation. Needs matplotlib, which the train extra installs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import Evaluation
from cascade.evaluation.metrics import confusion, reliability, top_k_hits

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise CanonistiaError(
        "--plots needs matplotlib, which the serving install leaves out; run pip install matplotlib"
    ) from error


def write_plots(evaluation: Evaluation, report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``confusion.png``, ``reliability.png`` and ``routing.png`` into a folder, and return their paths.

    ``stress.png`` is written too if the report has a stress test.
    """
    figures = {
        "confusion.png": plot_confusion(evaluation),
        "reliability.png": plot_reliability(evaluation),
        "routing.png": plot_routing(evaluation),
    }
    if "stress" in report:
        figures["stress.png"] = plot_stress(report["stress"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(folder / name, dpi=120)
    except OSError as error:
        raise CanonistiaError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error
    return [folder / name for name in figures]


def plot_confusion(evaluation: Evaluation) -> Figure:
    """Draw the confusion matrix of the cascade: counts as numbers, shares of the true class as shades."""
    classes = evaluation.engine.classes
    counts = confusion(evaluation.output.probabilities, evaluation.targets)  # (K, K)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    size = 3 + 0.42 * len(classes)  # inches
    figure = _figure(size, size)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=60, ha="right")
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="answered", ylabel="true", title="Confusion")
    for row, column in zip(*np.nonzero(counts), strict=True):
        ink = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=ink, fontsize=8)
    return figure


def plot_reliability(evaluation: Evaluation) -> Figure:
    """Draw accuracy against confidence, before and after calibration; a calibrated stage is on the diagonal."""
    figure = _figure(5, 5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    stages = {
        "main, before calibration": evaluation.uncalibrated,
        "main": evaluation.output.main_alone,
        "cascade": evaluation.output.probabilities,
    }
    for name, probabilities in stages.items():
        counts, confidence, accuracy = reliability(probabilities, evaluation.targets)
        axes.scatter(confidence, accuracy, s=8 + 3 * np.sqrt(counts), alpha=0.8, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", title="Reliability (area: pictures)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def plot_routing(evaluation: Evaluation) -> Figure:
    """Draw accuracy against the share routed, with the least confident pictures first, and the bundle's point."""
    shares, accuracies = routing_curve(evaluation)
    hits, _ = top_k_hits(evaluation.output.probabilities, evaluation.targets)
    figure = _figure(6, 4)
    axes = figure.subplots()
    axes.plot(shares, accuracies, label="least confident first")
    axes.scatter([evaluation.output.routed.mean()], [hits.mean()], color="C1", zorder=3, label="this bundle")
    axes.set(xlabel="share routed", ylabel="top 1", title="Accuracy against share routed")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def plot_stress(stress: Mapping[str, Any]) -> Figure:
    """Draw the top 1 of both stages under each kind and strength: kinds in rows, as numbers and as shades."""
    kinds = list(stress["kinds"])
    figure = _figure(7, 1.2 + 0.32 * len(kinds))
    for axes, stage in zip(figure.subplots(1, 2, sharey=True), ("main", "cascade"), strict=True):
        shares = [[figures[stage]["top1"] for figures in stress["kinds"][kind].values()] for kind in kinds]
        axes.imshow(shares, cmap="RdYlGn", vmin=0.4, vmax=1, aspect="auto")
        for row, values in enumerate(shares):
            for column, value in enumerate(values):
                axes.text(column, row, f"{value:.1%}", ha="center", va="center", fontsize=8)
        axes.set_xticks(range(3), ("1", "2", "3"))
        axes.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
        axes.set(xlabel="strength", title=f"Top 1 under stress: {stage}")
    return figure


def routing_curve(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Return shares (M,) and top-1 accuracies (M,) when only the least confident pictures are routed.

    The curve ends at the share that the bundle routes: the submodels were not asked about other pictures.
    """
    main, _ = top_k_hits(evaluation.output.main, evaluation.targets)
    final, _ = top_k_hits(evaluation.output.probabilities, evaluation.targets)
    routed = np.flatnonzero(evaluation.output.routed)
    order = routed[np.argsort(evaluation.output.main[routed].max(axis=1), kind="stable")]
    gained = np.concatenate([[0], np.cumsum(final[order].astype(int) - main[order].astype(int))])
    total = len(evaluation.targets)
    return np.arange(len(order) + 1) / total, (main.sum() + gained) / total


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
