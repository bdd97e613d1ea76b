"""The commands that make, tune and compare cascades. Each imports its code when called: --help needs no PyTorch."""

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from cascade.destinations import NewFile, NewFolder
from export.plan import BOTH_RATE, BUDGET, FALSE_ALARM_RATE
from trainers.options import features_option

if TYPE_CHECKING:
    from cascade.bundle.reading import Bundle
    from export.commands.quantize import Comparison
    from export.fitting.selection import FittedCascade

F = TypeVar("F", bound=Callable[..., Any])

_NOTHING = "no picture is routed: within the budget, no routing rule was better than the main model alone"
_TOO_FEW = (
    "too few doubtful pictures to choose rules from: the simplest are kept (confidence, product); "
    "add validation pictures, or raise --budget"
)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_OF_FROZEN = ("main_backbone", "second_backbone", "second_size", "second_flip", "features", "budget")


def budget_option(command: F) -> F:
    """Add ``--budget`` to a command."""
    return click.option(
        "--budget",
        type=float,
        default=BUDGET,
        show_default=True,
        help="Highest mean cost per picture, in passes of the main model. More than 1: the main model alone costs 1.",
    )(command)


def false_alarm_option(command: F) -> F:
    """Add ``--false-alarm-rate`` to a command."""
    return click.option(
        "--false-alarm-rate",
        type=click.FloatRange(0, 0.5),
        default=FALSE_ALARM_RATE,
        show_default=True,
        help="Highest share of pictures of known classes that may be marked unsure.",
    )(command)


def both_rate_option(command: F) -> F:
    """Add ``--both-rate`` to a command."""
    return click.option(
        "--both-rate",
        type=click.FloatRange(0, 0.5),
        default=BOTH_RATE,
        show_default=True,
        help="Highest share of pictures of one class that may be marked as showing both named classes.",
    )(command)


def accept_option(command: F) -> F:
    """Add ``--accept`` to a command."""
    return click.option(
        "--accept",
        type=click.FloatRange(0.5, 1, max_open=True),
        metavar="ACCURACY",
        help="Fit a threshold of accepted answers, which are right in at least this share with 95% confidence, about "
        "pictures like those given; for a source that is not among them nothing is promised. 0.99 needs 299 accepted "
        "pictures without a mistake, or 473 with one. Default: no threshold.",
    )(command)


def notes_option(command: F) -> F:
    """Add ``--notes`` to a command."""
    return click.option(
        "--notes",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Markdown file that the model card ends with: licences, limits, figures of your own.",
    )(command)


@click.command()
@click.argument("photos", type=click.Path(exists=True, path_type=Path), metavar="PHOTOS")
@click.option("--out", type=NewFolder(), required=True, help="New folder of the bundle: models/NAME.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Time that everything may take on this machine; the most accurate that ends in it is trained. Default: 20.",
)
@click.option(
    "--test",
    type=click.Path(exists=True, path_type=Path),
    help="Pictures to score the result on, as for evaluate: one folder per class, or a manifest. No copy of them is "
    "trained on. Default: the test split of PHOTOS, if it has one.",
)
@click.option("--resume", is_flag=True, help="Continue a stopped fit by its plan; start it if there is none.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier fit and its bundle.")
def fit(**options: Any) -> None:
    """Train, export and score a cascade from labelled photos, within a promised time.

    PHOTOS is a folder with one folder per class, with or without splits, or a manifest (see check-data). Unreadable
    pictures, copies and pictures with two labels are left out. For some seconds the speed of this machine is measured;
    then networks, frozen or fine-tuned, and epochs are chosen so that everything ends in time, and the plan is written.

    The runs, the plan with its exact commands and the log are in OUT.runs. Nothing is sent to Weights & Biases.
    """
    from export.commands.fit import FitRequest
    from export.commands.fit import fit as run
    from export.planning.text import result_lines

    fitted = run(FitRequest(**options))
    click.echo("\n".join(result_lines(fitted.plan, fitted.manifest, fitted.test)))


@click.command()
@click.option("--main", "main_run", type=_FOLDER, required=True, help="Run folder of train-main.")
@click.option("--subs", type=_FOLDER, required=True, help="Run folder of train-sub.")
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="Data set that both were trained on; the validation split is used.",
)
@click.option("--out", type=NewFolder(), required=True, help="New folder of the bundle: models/NAME.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle in --out.")
@click.option(
    "--checkpoint",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="last: weights of the last epoch; best: weights of the best validation epoch, with optimistic figures.",
)
@click.option(
    "--cross-fit",
    is_flag=True,
    help="Hold no picture out: train the heads again in folds on training and validation pictures, fit calibration and "
    "rules on the answers of heads that were not trained on the picture, and export the mean of the heads. For few "
    "pictures and frozen networks.",
)
@budget_option
@false_alarm_option
@both_rate_option
@accept_option
@click.option("--seed", default=0, show_default=True, help="Seed of the cross-validation folds.")
@notes_option
@click.option("--int8", is_flag=True, help="Also write the 8-bit form (see 'canonistia quantize --help').")
def export(int8: bool, **options: Any) -> None:
    """Export trained models as one bundle of ONNX files for classify, evaluate and serve.

    Calibration and routing are fitted on the validation split by cross-validation, or with --cross-fit on all
    pictures. The ONNX files are checked against PyTorch on every validation picture. The bundle is written whole or
    not at all.
    """
    from export.commands.export_bundle import export_bundle
    from export.plan import ExportPlan

    if int8 and options["cross_fit"]:
        raise click.UsageError("--int8 calibrates on held-out pictures, and --cross-fit holds none out; leave one out")
    bundle, fitted = export_bundle(ExportPlan(**options))
    _warn_about_rules(fitted)
    measured = bundle.manifest.measured
    click.echo(
        f"{bundle.folder}: main {measured.main.top1:.4f}, cascade {measured.cascade.top1:.4f} top 1 and "
        f"{measured.cascade.top2:.4f} top 2 on {measured.pictures} {measured.split} pictures (out of fold), "
        f"{measured.routed:.1%} routed"
    )
    _say_about_marks(bundle)
    if int8:
        from export.commands.quantize import QuantizePlan
        from export.commands.quantize import quantize as run
        from trainers.runs.folder import read_config

        terms = {name: options[name] for name in ("data", "budget", "false_alarm_rate", "both_rate", "seed")}
        split_seed = read_config(options["main_run"])["seed"]
        _print_comparison(run(QuantizePlan(str(bundle.folder), **terms, split_seed=split_seed)))


def _say_about_marks(bundle: "Bundle") -> None:
    rules = bundle.manifest.rules
    if rules.both is None:
        click.echo("no answer is marked both: too few pictures are routed to fit the mark", err=True)
    if accept := rules.accept:
        click.echo(
            f"accepted answers: {accept.accepted} of {accept.pictures} ({accept.accepted / accept.pictures:.1%}), "
            f"{accept.mistakes} of them wrong; of pictures like these, at least {accept.accuracy:.4g} are right with "
            f"{accept.confidence:.0%} confidence",
            err=True,
        )


def _warn_about_rules(fitted: "FittedCascade") -> None:
    if not fitted.compared:
        click.echo(_TOO_FEW, err=True)
    elif fitted.routes_nothing:
        click.echo(_NOTHING, err=True)


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(exists=True, path_type=Path), metavar="DATA")
@budget_option
@false_alarm_option
@both_rate_option
@accept_option
@click.option(
    "--plot",
    type=NewFile(makes_folder=True),
    default=Path("accuracy_against_cost.png"),
    show_default=True,
    help="PNG file for the plot of accuracy against mean cost.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the cross-validation folds.")
@notes_option
def tune(**options: Any) -> None:
    """Refit a bundle's routing and decision rules within a budget.

    MODEL is a bundle's folder or name. DATA holds labelled pictures that no network was trained on: one folder per
    class, or a data set or manifest, whose validation split is used. All rules are compared by cross-validation. The
    best rules within the budget are written into the bundle. Calibration, the marks "unsure" and "both" and the
    prediction sets are refitted on the same pictures; without --accept the bundle says nothing about accepted answers.
    """
    from export.commands.tune import TunePlan, comparison_table
    from export.commands.tune import tune as run

    tuned = run(TunePlan(**options))
    click.echo(comparison_table(tuned))
    _warn_about_rules(tuned.fitted)
    rules, measured = tuned.bundle.manifest.rules, tuned.bundle.manifest.measured
    click.echo(
        f"{tuned.bundle.folder}: {rules.routing.name}, {rules.decision.name}; top 1 {measured.cascade.top1:.4f}, top 2 "
        f"{measured.cascade.top2:.4f} at {measured.cost:.2f} main passes (nested cross-validation)"
    )
    _say_about_marks(tuned.bundle)
    click.echo(f"drew {options['plot']}", err=True)


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(exists=True, path_type=Path), metavar="DATA")
@budget_option
@false_alarm_option
@both_rate_option
@click.option("--seed", default=0, show_default=True, help="Seed of the calibration pictures and the folds.")
@click.option("--split-seed", default=0, show_default=True, help="Seed given to train-main, for DATA without splits.")
@click.option("--overwrite", is_flag=True, help="Replace an existing 8-bit form.")
def quantize(**options: Any) -> None:
    """Write a smaller and faster 8-bit form of a bundle.

    MODEL is a bundle's folder or name, DATA the data set that it was made from. Weights and activations of the
    networks become 8-bit integers. The activation ranges are calibrated on training pictures, by the method that
    changes the features least. Calibration and rules of the cascade are refitted on the validation pictures. The
    8-bit form is written into the folder int8 inside the bundle's folder, where --precision finds it, and only if the
    cascade loses at most 0.3 points of top-1 accuracy.
    """
    from export.commands.quantize import QuantizePlan
    from export.commands.quantize import quantize as run

    _print_comparison(run(QuantizePlan(**options)))


def _print_comparison(comparison: "Comparison") -> None:
    exact, rounded = comparison.floating_measured.measured.cascade, comparison.integers.manifest.measured.cascade
    sizes = [sum(file.size for file in bundle.manifest.files) for bundle in (comparison.floating, comparison.integers)]
    quantised = comparison.integers.manifest.quantised
    assert quantised is not None  # it was just written
    click.echo(
        f"{comparison.integers.folder}: {sizes[1] / 1e6:.1f} MB ({sizes[1] / sizes[0]:.2f} of float), a pass of the "
        f"main network {quantised.speed_up:.2f} times as fast ({quantised.processor}); "
        f"cascade {rounded.top1:.4f} top 1 and {rounded.top2:.4f} top 2, "
        f"float {exact.top1:.4f} and {exact.top2:.4f}, on "
        f"{comparison.integers.manifest.measured.pictures} validation pictures (out of fold); ranges by "
        f"{', '.join(sorted(set(quantised.calibration.values())))}"
    )
    if comparison.lost_promise:
        click.echo("with 8 bits, too few answers are right to say which are accepted: that rule is left out", err=True)


@click.command("benchmark-cascade")
@click.argument("data", type=click.Path(exists=True, path_type=Path), metavar="DATA")
@click.option(
    "--leave-source-out",
    is_flag=True,
    help="Instead of random splits: leave each source of a manifest (column source) out of training, and score on it. "
    "Runs a whole pipeline for each source.",
)
@click.option(
    "--pipeline",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file with steps = [...], the commands that train and export {run}/bundle from {data}; each split or "
    "source runs all of them, with fine-tuned networks if you like. Default with --leave-source-out: train-main, "
    "train-sub and export with their defaults.",
)
@click.option(
    "--out",
    type=NewFolder(),
    help="Folder of the pipeline's runs. The same command goes on where a stopped one ended.",
)
@click.option(
    "--main-backbone", default="efficientnet_lite0", show_default=True, help="Frozen backbone of the main model."
)
@click.option(
    "--second-backbone",
    default="efficientnet_lite2",
    show_default=True,
    help="Frozen backbone of the submodels' shared trunk.",
)
@click.option("--second-size", type=click.IntRange(32, 1024), help="Image size of the trunk. Default: its native size.")
@click.option("--second-flip", is_flag=True, help="Show the trunk the mirror image, too: two passes.")
@features_option
@click.option("--splits", type=click.IntRange(min=1), default=10, show_default=True, help="Number of random splits.")
@click.option(
    "--per-class", type=click.IntRange(min=10), default=100, show_default=True, help="Training pictures per class."
)
@click.option(
    "--budget",
    type=float,
    default=2.0,
    show_default=True,
    help="Highest mean cost per picture, in passes of the main model.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the first split; each further split adds 1.")
@click.option("--json", "as_json", is_flag=True, help="Print every split and the differences as one JSON object.")
@click.pass_context
def benchmark_cascade(
    context: click.Context,
    /,
    data: Path,
    leave_source_out: bool,
    pipeline: Path | None,
    out: Path | None,
    main_backbone: str,
    second_backbone: str,
    second_size: int | None,
    second_flip: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare a cascade with its main model and its second stage over random splits.

    The pictures of DATA, a folder or a manifest, are pooled, whatever split they are in. In each random split,
    --per-class pictures of each class are for training and the rest for testing; copies of one picture stay together.
    Backbones are frozen. Linear heads (the submodels' with the default negatives of train-sub), calibration and rules
    are fitted for each split on its training pictures only.

    With --pipeline or --leave-source-out, commands that you choose train and export a bundle for each split or source,
    which is then scored as 'canonistia evaluate' does. A source with a validation split is at home, and never left out.
    """
    if leave_source_out or pipeline or out:
        given = [name for name in _OF_FROZEN if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
        if given:
            raise click.UsageError(f"a pipeline names its own networks: leave --{given[0].replace('_', '-')} out")
        if not out or not (leave_source_out or pipeline):
            raise click.UsageError("a pipeline needs --out, and --pipeline or --leave-source-out")
        _benchmark_pipeline(context, data, leave_source_out, pipeline, out, as_json, options)
        return
    from cascade.progress import track
    from export.commands.benchmark import BenchmarkPlan, describe, read_pool, run_benchmark, summary
    from trainers.networks.config import NetworkConfig

    second = NetworkConfig(second_backbone, size=second_size, flip=second_flip)
    plan = BenchmarkPlan(data, NetworkConfig(main_backbone), second, **options)
    results = list(track(run_benchmark(read_pool(plan), plan), "splits", plan.splits))
    click.echo(json.dumps(summary(plan, results), indent=2) if as_json else describe(results))


def _benchmark_pipeline(
    context: click.Context,
    data: Path,
    leave_source_out: bool,
    pipeline: Path | None,
    out: Path,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    from export.commands.pipeline import describe, random_folds, read_steps, run_pipeline, source_folds, summary

    root = context.find_root()
    commands = root.command
    assert isinstance(commands, click.Group)

    def call(words: Sequence[str]) -> None:
        """Run a step; one that was stopped is resumed, or starts over."""
        command = commands.get_command(context, words[0])
        if command is None:
            raise click.UsageError(f"the pipeline has the step '{words[0]}', which is no command of canonistia")
        names = {option.name for option in command.params}
        again = "--resume" if "resume" in names else "--overwrite" if "overwrite" in names else None
        given = [*words[1:], *([again] if again else [])]
        # What a step prints is not the figures.
        with command.make_context(words[0], given, root) as step, contextlib.redirect_stdout(sys.stderr):
            command.invoke(step)

    steps = read_steps(pipeline)
    if leave_source_out:
        folds = source_folds(data)
    else:
        folds = random_folds(data, options["splits"], options["per_class"], options["seed"])
    reports = []
    for number, report in enumerate(run_pipeline(folds, steps, out, call), start=1):
        reports.append(report)
        click.echo(f"{number} of {len(folds)}: {report['name']} {report['cascade']['top1']:.4f}", err=True)
    found = summary(reports)
    click.echo(json.dumps(found, indent=2) if as_json else describe(found))
