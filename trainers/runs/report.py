"""The report of a run: one page that stands alone, for the person who decides what to do next."""

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
from trainers.data.decode_cache import decoded
from trainers.data.thumbnails import as_data_url, thumbnail
from trainers.networks.classifier import Classifier, activation_maps
from trainers.runs.evaluated import Evaluated, Mistake
from trainers.runs.folder import Metrics, read_config, read_metrics
from trainers.runs.label_issues import LabelIssue

REPORT = "report.html"
_WORST, _PAIRS, _SUSPECTS = 12, 8, 24


@dataclass(frozen=True)
class ModelView:
    """A trained network with its preprocessing, which can show where it looked."""

    network: Classifier
    spec: PreprocessSpec


def write_report(
    folder: Path, evaluated: Evaluated, model_view: ModelView | None, suspects: Sequence[LabelIssue] | None
) -> None:
    """Write ``report.html`` into a run's folder; curves and settings are taken from there.

    Parameters
    ----------
    model_view
        Gives the activation maps of the mistakes, when its backbone has a feature map.
    suspects
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
        advice=advice(rows, config, evaluated, suspects),
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
        suspects=[
            {"suspect": suspect, "picture": as_data_url(thumbnail(suspect.path))}
            for suspect in (suspects or [])[:_SUSPECTS]
        ],
        suspects_note=_note(suspects),
    )
    write_text(folder / REPORT, page)


def advice(
    rows: Sequence[Metrics], config: dict[str, Any], evaluated: Evaluated, suspects: Sequence[LabelIssue] | None
) -> list[str]:
    """Return what the figures of a run speak for, one sentence each."""
    losses = [row["validation_loss"] for row in rows]
    lines = []
    if len(rows) > 2 and int(np.argmin(losses)) < len(rows) - 1 - len(rows) // 3 and losses[-1] > 1.05 * min(losses):
        lines.append(
            f"The validation loss was lowest in epoch {int(np.argmin(losses)) + 1} and rose after it: train for fewer "
            "epochs, or use --augment strong, --mix both or more --weight-decay."
        )
    elif len(rows) > 2 and losses[-1] < 0.98 * min(losses[:-1]):
        lines.append("The validation loss was still falling at the end: train for more epochs.")
    if config["unfreeze"] == "head":
        lines.append("Only the head was trained: --unfreeze all --epochs 10 takes longer and usually gains a point.")
    weakest = min(evaluated.by_class(), key=lambda figures: figures.recall)
    if weakest.recall < 0.9:
        lines.append(
            f"Of the {weakest.pictures} pictures of {weakest.label}, {weakest.recall:.0%} were recognised, the fewest "
            "of all classes: add training pictures of it, above all such as the mistakes below."
        )
    for first, second, count in evaluated.confused_pairs(1):
        lines.append(f"{first} and {second} are confused most ({count} pictures): do their labels mean one thing?")
    if suspects:
        lines.append(
            f"Training pictures that are probably mislabelled: {len(suspects)}. Look at them, correct a manifest "
            "(canonistia check-data --fix), and train again."
        )
    if config.get("positive") is None:
        lines.append("When you are content: canonistia train-sub, then canonistia export.")
    return lines


def _note(suspects: Sequence[LabelIssue] | None) -> str:
    if suspects is None:
        return "Not looked for in this run: the main model's report has them."
    if not suspects:
        return "None found among the training pictures, by models that had not seen them (cleanlab)."
    shown = min(len(suspects), _SUSPECTS)
    return (
        f"Training pictures whose label is doubted by models that had not seen them (cleanlab): {len(suspects)}; "
        f"{shown} shown, the least likely label first."
    )


def _figures(row: Metrics) -> list[tuple[str, str]]:
    names = [name for name in row if name.startswith("validation_")]
    return [(name.removeprefix("validation_").replace("_", " "), f"{row[name]:.4f}") for name in names]


def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("trainers")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(REPORT)


def _evidence(model_view: ModelView, mistakes: Sequence[Mistake], classes: Sequence[str]) -> list[Image.Image]:
    """Return each mistake's picture under the activation map of the class that it was taken for."""
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
