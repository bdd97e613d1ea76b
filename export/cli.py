"""The commands that make, tune and compare cascades. Each imports its work when called: --help needs no PyTorch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from export.plan import BUDGET, FALSE_ALARM_RATE
from trainers.options import features_option

if TYPE_CHECKING:
    from export.commands.quantize import Comparison
    from export.fitting.selection import FittedCascade

F = TypeVar("F", bound=Callable[..., Any])

_NOTHING = "routing nothing was the best within the budget: the submodels did not help on these pictures"
_TOO_FEW = (
    "too few doubtful pictures to choose rules from: the simplest are kept (confidence, product); "
    "add validation pictures, or raise --budget"
)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def budget_option(command: F) -> F:
    """Add ``--budget`` to a command."""
    return click.option(
        "--budget",
        type=float,
        default=BUDGET,
        show_default=True,
        help="Highest mean cost of a picture, in passes of the main model (more than 1, which that alone costs).",
    )(command)


def false_alarm_option(command: F) -> F:
    """Add ``--false-alarm-rate`` to a command."""
    return click.option(
        "--false-alarm-rate",
        type=click.FloatRange(0, 0.5),
        default=FALSE_ALARM_RATE,
        show_default=True,
        help="Share of pictures of a known class that may be marked unsure.",
    )(command)


@click.command()
@click.option("--main", "main_run", type=_FOLDER, required=True, help="The run of train-main.")
@click.option("--subs", type=_FOLDER, required=True, help="The folder of train-sub.")
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="The data set of both; its validation split is used.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle's new folder, models/NAME.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier bundle in --out.")
@click.option(
    "--checkpoint",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="last: after the last epoch; best: chosen on validation, whose figures then flatter.",
)
@budget_option
@false_alarm_option
@click.option("--seed", default=0, show_default=True, help="Seed of the cross-validation folds.")
@click.option("--int8", is_flag=True, help="Write the 8-bit form, too ('canonistia quantize --help').")
def export(int8: bool, **options: Any) -> None:
    """Export trained models as one bundle of ONNX files that classify, evaluate and serve read.

    Calibration and routing are fitted on the validation split by cross-validation; the ONNX files are checked
    against PyTorch on every validation picture. A bundle is written whole or not at all.
    """
    from export.commands.export_bundle import export_bundle
    from export.plan import ExportPlan

    bundle, fitted = export_bundle(ExportPlan(**options))
    _say_how(fitted)
    measured = bundle.manifest.measured
    click.echo(
        f"{bundle.folder}: main {measured.main.top1:.4f}, cascade {measured.cascade.top1:.4f} top 1 and "
        f"{measured.cascade.top2:.4f} top 2 on {measured.pictures} {measured.split} pictures (out of fold), "
        f"{measured.routed:.1%} routed"
    )
    if int8:
        from export.commands.quantize import QuantizePlan
        from export.commands.quantize import quantize as run
        from trainers.runs.folder import read_config

        terms = {name: options[name] for name in ("data", "budget", "false_alarm_rate", "seed")}
        split_seed = read_config(options["main_run"])["seed"]
        _say_compared(run(QuantizePlan(str(bundle.folder), **terms, split_seed=split_seed)))


def _say_how(fitted: "FittedCascade") -> None:
    if not fitted.compared:
        click.echo(_TOO_FEW, err=True)
    elif fitted.routes_nothing:
        click.echo(_NOTHING, err=True)


@click.command()
@click.argument("model")
@click.argument("data", type=_FOLDER, metavar="DIR")
@budget_option
@false_alarm_option
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("accuracy_against_cost.png"),
    show_default=True,
    help="Where the curve of accuracy against mean cost is drawn.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the cross-validation folds.")
def tune(**options: Any) -> None:
    """Choose a bundle's routing and decision rules anew, within a budget.

    MODEL is a bundle's folder or name, DIR the labelled pictures that it is tuned on: class folders, or a data set
    whose validation split is taken. They must not have been trained on. All rules are compared by cross-validation;
    the best within the budget are written into the bundle, with the calibration, the mark "unsure" and the answer
    sets fitted on the same pictures.
    """
    from export.commands.tune import TunePlan, comparison
    from export.commands.tune import tune as run

    tuned = run(TunePlan(**options))
    click.echo(comparison(tuned))
    _say_how(tuned.fitted)
    rules, measured = tuned.bundle.manifest.rules, tuned.bundle.manifest.measured
    click.echo(
        f"{tuned.bundle.folder}: {rules.routing.name}, {rules.decision.name}; top 1 {measured.cascade.top1:.4f}, top 2 "
        f"{measured.cascade.top2:.4f} at {measured.cost:.2f} main passes (nested cross-validation)"
    )
    click.echo(f"drew {options['plot']}", err=True)


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(exists=True, path_type=Path), metavar="DATA")
@budget_option
@false_alarm_option
@click.option("--seed", default=0, show_default=True, help="Seed of the pictures and of the cross-validation folds.")
@click.option("--split-seed", default=0, show_default=True, help="The seed of train-main, for DATA without splits.")
@click.option("--overwrite", is_flag=True, help="Replace an 8-bit form that is there.")
def quantize(**options: Any) -> None:
    """Write the 8-bit form of a bundle, smaller and faster.

    MODEL is a bundle's folder or name, DATA the data set that it was made from. Weights and activations of the
    networks become 8-bit integers; the ranges of the activations are calibrated on training pictures by the method
    that changes least. Calibration and rules of the cascade are fitted anew on the validation pictures. The form is
    written into the folder int8 inside the bundle's own, where --precision finds it, and only if the cascade loses
    no more than 0.3 points of top 1.
    """
    from export.commands.quantize import QuantizePlan
    from export.commands.quantize import quantize as run

    _say_compared(run(QuantizePlan(**options)))


def _say_compared(compared: "Comparison") -> None:
    exact, rounded = compared.floating_measured.measured.cascade, compared.integers.manifest.measured.cascade
    sizes = [sum(file.size for file in bundle.manifest.files) for bundle in (compared.floating, compared.integers)]
    quantised = compared.integers.manifest.quantised
    assert quantised is not None  # it was just written
    click.echo(
        f"{compared.integers.folder}: {sizes[1] / 1e6:.1f} MB ({sizes[1] / sizes[0]:.2f} of float), a pass of the main "
        f"network {quantised.speed_up:.2f} times as fast ({quantised.processor}); cascade {rounded.top1:.4f} top 1 and "
        f"{rounded.top2:.4f} top 2, float {exact.top1:.4f} and {exact.top2:.4f}, on "
        f"{compared.integers.manifest.measured.pictures} validation pictures (out of fold); ranges by "
        f"{', '.join(sorted(set(quantised.calibration.values())))}"
    )


@click.command("benchmark-cascade")
@click.argument("data", type=_FOLDER, metavar="DIR")
@click.option(
    "--main-backbone", default="efficientnet_lite0", show_default=True, help="Frozen backbone of the main model."
)
@click.option(
    "--second-backbone", default="efficientnet_lite2", show_default=True, help="Frozen trunk of the submodels."
)
@click.option("--second-size", type=click.IntRange(32, 1024), help="Side that the trunk sees. Default: its own.")
@click.option("--second-flip", is_flag=True, help="The trunk sees the mirror image, too: two passes.")
@features_option
@click.option("--splits", type=click.IntRange(min=1), default=10, show_default=True, help="Seeded random splits.")
@click.option("--per-class", type=click.IntRange(min=10), default=100, show_default=True, help="Trained on, a class.")
@click.option("--budget", type=float, default=2.0, show_default=True, help="Highest mean cost, in main passes.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first split.")
@click.option("--json", "as_json", is_flag=True, help="Print every split and the differences as one JSON object.")
def benchmark_cascade(
    data: Path,
    main_backbone: str,
    second_backbone: str,
    second_size: int | None,
    second_flip: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare a cascade with its main model and its second stage by the standard protocol.

    The pictures of DIR are pooled, whatever split they lie in; so many of each class are trained on and the rest
    tested, in seeded splits, the same picture twice on one side. Backbones are frozen; linear heads (the submodels'
    with train-sub's default negatives), calibration and rules are fitted anew in each split, on its training pictures
    alone.
    """
    from export.commands.benchmark import ProtocolPlan, describe, read_pool, run_protocol, summary
    from trainers.networks.config import NetworkConfig
    from trainers.progress import track

    second = NetworkConfig(second_backbone, size=second_size, flip=second_flip)
    plan = ProtocolPlan(data, NetworkConfig(main_backbone), second, **options)
    results = list(track(run_protocol(read_pool(plan), plan), "splits", plan.splits))
    click.echo(json.dumps(summary(plan, results), indent=2) if as_json else describe(results))
