"""The training commands. Each imports its recipe when called, so that --help needs no PyTorch."""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.core import ParameterSource

from cascade.destinations import NewFile, NewFolder
from cascade.terminal import printable
from trainers.options import features_option, recipe_options, take_recipe
from trainers.recipe import (
    COMPOSITIONS,
    DEFAULT_COMPOSITION,
    DEFAULT_POLICY,
    MAIN_DEFAULTS,
    POLICIES,
    SUB_DEFAULTS,
    TRACKERS,
)

if TYPE_CHECKING:
    from cascade.bundle.manifest import HeadFeatures

F = TypeVar("F", bound=Callable[..., Any])

DATA = click.Path(exists=True, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
PLOT_ENDINGS = (".png", ".jpg", ".pdf", ".svg")
_OF_MAIN = ("loss", "label_smoothing", "teacher_weight")  # settings that only a main model's training has

_RESUME = click.option(
    "--resume",
    is_flag=True,
    help="Continue an interrupted run in --out, to the same result; start it if there is none.",
)


def _network_options(backbone: str) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in (
            click.option(
                "--flip", is_flag=True, help="Test-time augmentation: average with the mirror image, at twice the cost."
            ),
            click.option(
                "--colour", type=click.Choice(["rgb", "grey"]), help="Colour mode. Default: grey if all pictures are."
            ),
            click.option(
                "--resize",
                type=click.Choice(["squash", "crop"]),
                default="squash",
                show_default=True,
                help="squash: resize the whole picture to a square; crop: take its central square.",
            ),
            click.option(
                "--pretrained/--no-pretrained",
                default=True,
                show_default=True,
                help="Initialise the backbone with pretrained or with random weights.",
            ),
            click.option(
                "--size", type=click.IntRange(32, 1024), help="Image size in pixels. Default: the backbone's."
            ),
            click.option(
                "--weights",
                type=click.Path(path_type=Path),
                help="Backbone weights: a safetensors or PyTorch file, instead of the library's.",
            ),
            click.option(
                "--backbone",
                default=backbone,
                show_default=True,
                help="A name that 'canonistia backbones' lists, timm/NAME, hf-hub:ORG/NAME, or A+B: features of both.",
            ),
        ):
            command = option(command)
        return command

    return decorate


@click.command("check-data")
@click.argument("source", type=DATA, metavar="DATA")
@click.option(
    "--add",
    "added",
    multiple=True,
    type=DATA,
    metavar="DATA",
    help="Another data set to add, such as the corrections that serve collects; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.option(
    "--fix",
    type=NewFile(".csv"),
    metavar="OUT.csv",
    help="Write a manifest without unreadable files, copies and pictures with two labels, and OUT.left_out.csv with "
    "these files, in groups, and the reasons. No picture is changed.",
)
def check_data(source: Path, added: tuple[Path, ...], as_json: bool, fix: Path | None) -> None:
    """Report the content of a data set, and its faults.

    DATA is a folder with one folder per class, or with splits under usual names (train, training_set, val, dev, test,
    Testing …) that have one folder per class; or a manifest: a CSV, JSON-lines or Parquet table with the columns path,
    label and split, whose paths are relative to its folder; or a Parquet table with the pictures themselves; or a
    folder of Hugging Face's, with metadata.csv or metadata.jsonl, or with Parquet tables named after their splits.
    """
    from trainers.data.audit import audit, examine
    from trainers.data.audit_text import describe
    from trainers.data.cleaning import check_new, clean, write_cleaned

    if fix:
        check_new(fix)
    examined = examine(source, added)
    report = audit(examined)
    click.echo(json.dumps(report.as_dict(), indent=2) if as_json else describe(report))
    if fix:
        cleaned = clean(examined)
        beside = write_cleaned(cleaned, fix)
        click.echo(
            f"wrote {fix} with {len(cleaned.kept)} pictures, and {beside} with {len(cleaned.left_out)} left out; "
            f"{cleaned.conflicts} of these have two labels: give each one label, and add it",
            err=True,
        )


@click.command()
@click.argument("pattern", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def backbones(pattern: str | None, as_json: bool) -> None:
    """List the networks that --backbone takes: parameters, native image size, and whether weights are on this machine.

    PATTERN is a part of a name, or a name with *: "convnext", "timm/vit_*". Without a pattern the packaged networks
    and torchvision's are listed, and timm's are only counted. A model of the Hugging Face hub that timm reads is named
    hf-hub:ORG/NAME and not listed. Weights "to fetch" are fetched when a training needs them; "to install" are in a
    Python package; for "none", train with --no-pretrained or --weights FILE.
    """
    from trainers.networks.catalogue import entries, matching

    names = matching(pattern)
    if not as_json:
        click.echo(f"{'backbone':<46} {'parameters':>12} {'size':>5}  weights")
    for entry in entries(names):
        if as_json:
            click.echo(json.dumps(asdict(entry)))
        else:
            click.echo(f"{entry.name:<46} {entry.parameters / 1e6:>10.1f} M {entry.size:>5}  {entry.weights}")
    if pattern is None:
        click.echo(f"and {len(matching('timm/*'))} of timm: canonistia backbones 'timm/*'", err=True)


@click.command("train-main")
@click.argument("folder", type=DATA, metavar="DATA")
@click.option("--out", type=NewFolder(), required=True, help="The new run's folder.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in --out.")
@_RESUME
@click.option(
    "--report/--no-report",
    default=True,
    show_default=True,
    help="Write report.html; its likely label errors take one pass of the initial backbone over the training pictures.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of processes that share every batch; with GPUs, each has its own.",
)
@click.option(
    "--start",
    type=FOLDER,
    help="Start from this finished run of the same data and backbone, its head included: first train the head, then "
    "fine-tune from there, once or several times ('canonistia average').",
)
@click.option(
    "--teacher",
    "teachers",
    type=FOLDER,
    multiple=True,
    metavar="RUN",
    help="Knowledge distillation: also learn the answers of this finished run of the same data, such as a larger "
    "network's; may be repeated. Needs --unfreeze.",
)
@_network_options("efficientnet_lite0")
@recipe_options(MAIN_DEFAULTS)
def train_main(
    folder: Path, out: Path, overwrite: bool, resume: bool, report: bool, processes: int, **options: Any
) -> None:
    """Train the main multiclass network on labelled pictures: a folder or a manifest (see check-data).

    By default the backbone stays frozen and only the head is trained, which takes a minute or two without a GPU.
    Fine-tuning is more accurate: --unfreeze all --epochs 8. On several machines, run the same command on each:
    accelerate launch ... -m canonistia train-main ...
    """
    if processes > 1:
        from trainers.distributed.process_context import launch, without_processes

        raise SystemExit(launch(processes, options["device"], without_processes(sys.argv[1:])))
    from trainers.commands.train_main import train_main as train
    from trainers.networks.config import NetworkConfig

    recipe = take_recipe(MAIN_DEFAULTS, options)
    train(folder, out, NetworkConfig(**options), recipe, overwrite, resume, report)
    following = shlex.join(("canonistia", "train-sub", str(folder), "--main", str(out), "--out", "RUNS"))
    click.echo(f"trained {out}; next: {following}", err=True)


@click.command()
@click.argument("runs", type=FOLDER, nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--data", type=DATA, required=True, help="Data set that the runs were trained on.")
@click.option("--out", type=NewFolder(), help="The new run's folder.")
@click.option(
    "--share", "shares", type=click.FloatRange(min=0), multiple=True, help="Weight of each RUN. Default: all equal."
)
@click.option(
    "--line",
    type=NewFile(*PLOT_ENDINGS),
    help="Draw the averages of two runs into this file: top 1 at home against top 1 on --elsewhere.",
)
@click.option("--elsewhere", type=DATA, help="Pictures from other sources, for --line: a folder or a manifest.")
@click.option("--points", type=click.IntRange(min=2), default=6, show_default=True, help="Points of --line.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in --out.")
@click.option("--tracker", type=click.Choice(TRACKERS), default="auto", show_default=True, help="See train-main.")
def average(
    runs: tuple[Path, ...],
    data: Path,
    out: Path | None,
    shares: tuple[float, ...],
    line: Path | None,
    elsewhere: Path | None,
    points: int,
    overwrite: bool,
    tracker: str,
) -> None:
    """Average the weights of finished runs that started from the same weights, into a new run.

    A fine-tuned network and the one that it started from (train-main --start): the average often holds better on other
    people's pictures, and is as good at home (WiSE-FT, arXiv 2109.01903). Several fine-tuned networks: a model soup
    (arXiv 2203.05482). The statistics of batch norms are estimated anew on training pictures.
    """
    from trainers.commands.average import average as write
    from trainers.commands.average import line as measure
    from trainers.commands.average import line_rows, plot_line

    if (line is None) != (elsewhere is None):
        raise click.UsageError("--line and --elsewhere belong together")
    if not out and not line:
        raise click.UsageError("give --out for the averaged run, --line for a plot, or both")
    if line and elsewhere:
        found = measure(data, runs, elsewhere, points)
        plot_line(found, line)
        for row in line_rows(found):
            click.echo("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        click.echo(f"drew {line}", err=True)
    if out:
        write(data, runs, shares or (1.0,) * len(runs), out, tracker, overwrite)
        click.echo(f"averaged {len(runs)} runs in {out}", err=True)


@click.command("find-lr")
@click.argument("folder", type=DATA, metavar="DATA")
@click.option("--steps", type=click.IntRange(min=20), default=100, show_default=True, help="Number of training steps.")
@click.option(
    "--plot",
    type=NewFile(*PLOT_ENDINGS),
    default=Path("learning_rate.png"),
    show_default=True,
    help="File for the plot of the loss against the learning rate.",
)
@_network_options("efficientnet_lite0")
@recipe_options(MAIN_DEFAULTS, without=("teacher_weight",))
def find_lr(folder: Path, steps: int, plot: Path, **options: Any) -> None:
    """Suggest learning rates for train-main: train some steps with rising rates, and find where the loss falls fastest.

    Give the options that train-main will get; --backbone-lr keeps its ratio to --lr.
    """
    from trainers.commands.find_lr import find_lr as find
    from trainers.commands.find_lr import plot_rates, rounded
    from trainers.networks.config import NetworkConfig

    recipe = take_recipe(MAIN_DEFAULTS, options)
    found = find(folder, NetworkConfig(**options), recipe, steps)
    plot_rates(found, plot)
    lr = rounded(found.suggested)
    click.echo(f"--lr {lr:g} --backbone-lr {rounded(lr * recipe.backbone_lr / recipe.lr):g}")
    click.echo(f"drew {plot}", err=True)


@click.command("new-class")
@click.argument("folder", type=DATA, metavar="DATA")
@click.option("--main", "main_run", type=FOLDER, required=True, help="A main run on the grown data set.")
@click.option("--subs", type=FOLDER, required=True, help="Folder of the existing submodels.")
@click.option("--out", type=NewFolder(), required=True, help="New folder for all submodels.")
@click.option("--negatives", type=click.Choice(POLICIES), default="weighted", show_default=True, help="See train-sub.")
@recipe_options(SUB_DEFAULTS, without=_OF_MAIN)
def new_class(folder: Path, main_run: Path, subs: Path, out: Path, negatives: str, **options: Any) -> None:
    """Add classes to a cascade: train only their submodels, and keep all others unchanged.

    First run train-main on the grown data set, whose old pictures keep their splits; then this command; then export
    with --subs OUT, which calibrates and measures the whole cascade again. To train one submodel again without a new
    class: train-sub --class NAME --overwrite, then export.
    """
    from trainers.commands.new_class import new_class as grow

    growth = grow(folder, main_run, subs, out, negatives, take_recipe(SUB_DEFAULTS, options))
    click.echo(f"trained {printable(', '.join(growth.added))} and kept {len(growth.kept)} submodels in {out}", err=True)


@click.command("train-sub")
@click.argument("folder", type=DATA, metavar="DATA")
@click.option("--main", "main_run", type=FOLDER, required=True, help="The main model's run.")
@click.option("--out", type=NewFolder(), required=True, help="Folder for the submodels.")
@click.option("--overwrite", is_flag=True, help="Replace submodels of the same classes in --out.")
@_RESUME
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Train only this class; may be repeated.")
@click.option(
    "--negatives",
    type=click.Choice(POLICIES),
    default=DEFAULT_POLICY,
    show_default=True,
    help="Weights of negative pictures. all: equal; siblings: only the 5 classes that the main model confuses most "
    "with this one; weighted: up to five times for the most confused classes; hard: up to five times for pictures "
    "that are misclassified out of fold.",
)
@click.option(
    "--compose",
    type=click.Choice(COMPOSITIONS),
    default=DEFAULT_COMPOSITION,
    show_default=True,
    help="Composed pictures in the training of heads on a shared trunk. presence: learn also from pairs of training "
    "pictures in one frame, each of which shows both its classes; a sixth as many as there are training pictures.",
)
@click.option("--trunk", type=FOLDER, help="A train-main run whose fine-tuned backbone all submodels share.")
@features_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="local: one after another; ray: in parallel, on this machine or the cluster of $RAY_ADDRESS.",
)
@click.option("--own-networks", is_flag=True, help="Train a whole network per class, without a shared trunk.")
@_network_options("efficientnet_lite2")
@recipe_options(SUB_DEFAULTS, without=_OF_MAIN)
@click.pass_context
def train_sub(
    context: click.Context,
    /,
    folder: Path,
    main_run: Path,
    out: Path,
    overwrite: bool,
    resume: bool,
    classes: tuple[str, ...],
    negatives: str,
    compose: str,
    trunk: Path | None,
    features: "HeadFeatures",
    own_networks: bool,
    engine: Literal["local", "ray"],
    **options: Any,
) -> None:
    """Train the binary submodels, one per class: is the picture of this class, or not?

    By default they share the frozen --backbone as one trunk, so that all of them together cost one pass.
    """
    from trainers.commands.train_sub import SubmodelPlan
    from trainers.commands.train_sub import train_sub as train
    from trainers.networks.config import NetworkConfig

    if own_networks and trunk:
        raise click.UsageError("--own-networks have no shared trunk: leave --trunk out")
    of_the_trunk = ("backbone", "weights", "size", "resize", "colour")
    given = [name for name in of_the_trunk if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if trunk and given:
        raise click.UsageError(f"--trunk has its own {', '.join(given)}: leave --{' and --'.join(given)} out")
    recipe = take_recipe(SUB_DEFAULTS, options)
    plan = SubmodelPlan(
        NetworkConfig(**options),
        "own" if own_networks else "shared",
        trunk,
        classes,
        negatives,
        features,
        engine,
        compose=compose,
    )
    trained = train(folder, main_run, out, plan, recipe, overwrite, resume)
    click.echo(f"trained {len(trained)} submodels in {out}", err=True)
