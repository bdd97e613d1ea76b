"""The export command."""

from pathlib import Path
from typing import Any

import click

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--main", "main_run", type=_FOLDER, required=True, help="The run of train-main.")
@click.option("--subs", type=_FOLDER, required=True, help="The folder of train-sub.")
@click.option("--data", type=_FOLDER, required=True, help="The data set of both; its validation split is used.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle's new folder, models/NAME.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier bundle in --out.")
@click.option(
    "--checkpoint",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="last: after the last epoch; best: chosen on validation, whose figures then flatter.",
)
@click.option(
    "--max-routed",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.25,
    show_default=True,
    help="Largest share of the validation pictures that the routing rule may send to the submodels.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the cross-validation folds.")
def export(**options: Any) -> None:
    """Export trained models as one bundle of ONNX files that classify, evaluate and serve read.

    Calibration and routing are fitted on the validation split by cross-validation; the ONNX files are checked
    against PyTorch on every validation picture. A bundle is written whole or not at all.
    """
    from export.export import export_bundle
    from export.plan import ExportPlan

    bundle = export_bundle(ExportPlan(**options))
    measured = bundle.manifest.measured
    click.echo(
        f"{bundle.folder}: main {measured.main.top1:.4f}, cascade {measured.cascade.top1:.4f} top 1 and "
        f"{measured.cascade.top2:.4f} top 2 on {measured.pictures} {measured.split} pictures (out of fold), "
        f"{measured.routed:.1%} routed"
    )
