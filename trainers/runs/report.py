"""The report of a run: one self-contained page, for the person who decides what to do next."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
import torch
from PIL import Image

from cascade.files import write_text
from cascade.images.preprocess import PreprocessSpec, least_size, preprocess
from cascade.images.unreadable import decoded
from trainers.data.thumbnails import as_data_url, thumbnail
from trainers.networks.classifier import Classifier, activation_maps
from trainers.runs.evaluated import Evaluated, Mistake
from trainers.runs.folder import Metrics, read_config, read_metrics
from trainers.runs.label_issues import LabelIssue

REPORT = "report.html"
_WORST, _PAIRS, _ISSUES = 12, 8, 24


@dataclass(frozen=True)
class ModelView:
    """A trained network with its preprocessing, for its activation maps."""

    network: Classifier
    spec: PreprocessSpec


def write_report(
    folder: Path, evaluated: Evaluated, model_view: ModelView | None, label_issues: Sequence[LabelIssue] | None
) -> None:
    """Write ``report.html`` into a run's folder, with the curves and settings that are in it.

    Parameters
    ----------
    model_view
        For the activation maps of the mistakes, when its backbone has a feature map.
    label_issues
        The likely label errors; None when they were not looked for.
    """
    rows, config = read_metrics(folder), read_config(folder)
    mistakes = evaluated.mistakes(_WORST)
    maps = (
        _evidence(model_view, mistakes, evaluated.classes)
        if model_view and model_view.network.backbone.spatial
        else None
    )
    matrix = evaluated.confusion()
    page = _template().render(
        name=folder.name,
        config=config,
        rows=rows,
        evaluated=evaluated,
        figures=_figures(rows[-1]),
        advice=advice(rows, config, evaluated, label_issues),
        curves="data:image/png;base64," + base64.b64encode((folder / "curves.png").read_bytes()).decode(),
        matrix=matrix.tolist(),
        widest=max(1, int(matrix.max())),
        by_class=evaluated.by_class(),
        pairs=evaluated.confused_pairs(_PAIRS),
        mistakes=[
            {
                "mistake": mistake,
                "picture": as_data_url(thumbnail(mistake.path)),
                "map": as_data_url(maps[number]) if maps else None,
            }
            for number, mistake in enumerate(mistakes)
        ],
        has_maps=maps is not None,
        label_issues=[
            {"issue": issue, "picture": as_data_url(thumbnail(issue.path))} for issue in (label_issues or [])[:_ISSUES]
        ],
        label_issues_note=_note(label_issues),
    )
    write_text(folder / REPORT, page)


def advice(
    rows: Sequence[Metrics], config: dict[str, Any], evaluated: Evaluated, label_issues: Sequence[LabelIssue] | None
) -> list[str]:
    """Return what the figures of a run suggest to do next, one sentence each."""
    losses = [row["validation_loss"] for row in rows]
    lines = []
    if len(rows) > 2 and int(np.argmin(losses)) < len(rows) - 1 - len(rows) // 3 and losses[-1] > 1.05 * min(losses):
        lines.append(
            f"The validation loss was lowest in epoch {int(np.argmin(losses)) + 1} and rose afterwards: train for "
            "fewer epochs, or use --augment strong, --mix both or more --weight-decay."
        )
    elif len(rows) > 2 and losses[-1] < 0.98 * min(losses[:-1]):
        lines.append("The validation loss was still falling at the end: train for more epochs.")
    if config["unfreeze"] == "head":
        lines.append("Only the head was trained: --unfreeze all --epochs 10 takes longer and usually gains a point.")
    weakest = min(evaluated.by_class(), key=lambda figures: figures.recall)
    if weakest.recall < 0.9:
        lines.append(
            f"Of the {weakest.pictures} pictures of {weakest.label}, {weakest.recall:.0%} were recognised, the lowest "
            "share of all classes: add training pictures of this class, above all such as the mistakes below."
        )
    for first, second, count in evaluated.confused_pairs(1):
        lines.append(f"{first} and {second} are confused most ({count} pictures): do their labels mean one thing?")
    if label_issues:
        lines.append(
            f"Training pictures that are probably mislabelled: {len(label_issues)}. Look at them, correct a manifest "
            "(canonistia check-data --fix), and train again."
        )
    if config.get("positive") is None:
        lines.append("When the results are good enough: canonistia train-sub, then canonistia export.")
    return lines


def _note(label_issues: Sequence[LabelIssue] | None) -> str:
    if label_issues is None:
        return "Not looked for in this run: the main model's report has them."
    if not label_issues:
        return "None found among the training pictures, by models that were not trained on them (cleanlab)."
    shown = min(len(label_issues), _ISSUES)
    return (
        f"Training pictures whose label models that were not trained on them doubt (cleanlab): {len(label_issues)}; "
        f"{shown} shown, the least likely label first."
    )


def _figures(row: Metrics) -> list[tuple[str, str]]:
    names = [name for name in row if name.startswith("validation_")]
    return [(name.removeprefix("validation_").replace("_", " "), f"{row[name]:.4f}") for name in names]


def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("trainers")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(REPORT)


def _evidence(model_view: ModelView, mistakes: Sequence[Mistake], classes: Sequence[str]) -> list[Image.Image]:
    """Return each mistake's picture under the activation map of the predicted class."""
    network = model_view.network.eval().cpu()
    pictures = []
    for mistake in mistakes:
        pixels = preprocess(decoded(mistake.path, least_size(model_view.spec)), model_view.spec)  # (H, W, 3)
        with torch.inference_mode():
            maps = activation_maps(
                network, network.backbone_output(torch.from_numpy(pixels.copy())[None])
            )  # (1, outputs, h, w)
        chosen = maps[0, classes.index(mistake.predicted) if maps.shape[1] > 1 else 0].numpy()  # (h, w)
        strength = np.clip(chosen, 0, None) / max(float(chosen.max()), 1e-6)
        heat = Image.fromarray((matplotlib.colormaps["inferno"](strength)[..., :3] * 255).astype(np.uint8))
        shown = Image.fromarray(pixels)
        pictures.append(Image.blend(shown, heat.resize(shown.size, Image.Resampling.BICUBIC), 0.55))
    return pictures
