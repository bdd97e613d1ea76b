"""The training commands. Each imports its recipe when called, so that --help needs no PyTorch."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.core import ParameterSource

from trainers.options import features_option, recipe_options, take_recipe
from trainers.recipe import DEFAULT_POLICY, MAIN_DEFAULTS, POLICIES, SUB_DEFAULTS

if TYPE_CHECKING:
    from cascade.bundle.manifest import HeadFeatures

F = TypeVar("F", bound=Callable[..., Any])

DATA = click.Path(exists=True, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


_RESUME = click.option(
    "--resume", is_flag=True, help="Go on with what was interrupted in --out, to the same result; start what is not."
)


def _eyes_options(backbone: str) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in (
            click.option(
                "--flip", is_flag=True, help="Look at every picture's mirror image, too, when classifying: two passes."
            ),
            click.option("--colour", type=click.Choice(["rgb", "grey"]), help="Default: grey when every picture is."),
            click.option(
                "--resize",
                type=click.Choice(["squash", "crop"]),
                default="squash",
                show_default=True,
                help="squash: the whole picture as a square; crop: its central square.",
            ),
            click.option(
                "--pretrained/--no-pretrained",
                default=True,
                show_default=True,
                help="Start from pretrained weights, or from random ones.",
            ),
            click.option("--size", type=click.IntRange(32, 1024), help="Side in pixels. Default: the backbone's own."),
            click.option(
                "--weights",
                type=click.Path(path_type=Path),
                help="Backbone weights from a safetensors or PyTorch file instead of the library's.",
            ),
            click.option(
                "--backbone",
                default=backbone,
                show_default=True,
                help="A name that 'canonistia backbones' lists, timm/NAME, hf-hub:ORG/NAME, or A+B: two side by side.",
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
    help="Further pictures, such as the corrections that serve collects; --fix writes one manifest of all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as one JSON object.")
@click.option(
    "--fix",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.csv",
    help="Write a manifest without unreadable files, copies and pictures under two labels, and OUT.left_out.csv with "
    "those, grouped, and why. No picture is touched.",
)
def check_data(source: Path, added: tuple[Path, ...], as_json: bool, fix: Path | None) -> None:
    """Report what a data set holds and what is wrong with it.

    DATA is a folder that holds splits (training or train, validation, valid or val, test) of class folders, or class
    folders alone; or a manifest: a CSV or Parquet table with the columns path, label and split, whose paths start
    from its folder.
    """
    from trainers.data.audit import audit, examine
    from trainers.data.audit_text import describe
    from trainers.data.cleaning import clean, write_cleaned

    examined = examine(source, added)
    report = audit(examined)
    click.echo(json.dumps(report.as_dict(), indent=2) if as_json else describe(report))
    if fix:
        cleaned = clean(examined)
        beside = write_cleaned(cleaned, fix)
        click.echo(
            f"wrote {fix} with {len(cleaned.kept)} pictures, and {beside} with {len(cleaned.left_out)} left out, of "
            f"which {cleaned.conflicts} under two labels: give each of those one label, and add it",
            err=True,
        )


@click.command()
@click.argument("pattern", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def backbones(pattern: str | None, as_json: bool) -> None:
    """List the networks that --backbone knows, with parameters, own side and whether their weights are here.

    PATTERN is a part of a name, or has * in it: "convnext", "timm/vit_*". Without one, the packaged and torchvision's
    networks are listed, and timm's only counted. A model of the Hugging Face hub that timm reads is named
    hf-hub:ORG/NAME and not listed. Weights that are not here are fetched when a training asks for them.
    """
    from trainers.networks.catalogue import entries, matching

    names = matching(pattern)
    if not as_json:
        click.echo(f"{'backbone':<46} {'parameters':>12} {'side':>5}  weights")
    for entry in entries(names):
        if as_json:
            click.echo(json.dumps(asdict(entry)))
        else:
            here = "here" if entry.weights_here else "to fetch"
            click.echo(f"{entry.name:<46} {entry.parameters / 1e6:>10.1f} M {entry.size:>5}  {here}")
    if pattern is None:
        click.echo(f"and {len(matching('timm/*'))} of timm: canonistia backbones 'timm/*'", err=True)


@click.command("train-main")
@click.argument("folder", type=DATA, metavar="DATA")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's new folder.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in --out.")
@_RESUME
@click.option(
    "--report/--no-report",
    default=True,
    show_default=True,
    help="Write report.html; for its likely label errors the backbone as it was looks at all training pictures.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Share every batch among so many processes, each with a GPU of its own where there are GPUs.",
)
@_eyes_options("efficientnet_lite0")
@recipe_options(MAIN_DEFAULTS)
def train_main(
    folder: Path, out: Path, overwrite: bool, resume: bool, report: bool, processes: int, **options: Any
) -> None:
    """Train the main multiclass network on labelled pictures: a folder or a manifest (see check-data).

    By default the backbone stays frozen and only the head is trained, which takes a minute or two without a GPU.
    Fine-tuning gives more accuracy: --unfreeze all --epochs 8. Several machines: accelerate launch ... -m canonistia
    train-main ..., the same on each.
    """
    if processes > 1:
        from trainers.distributed.process_context import launch, without_processes

        raise SystemExit(launch(processes, options["device"], without_processes(sys.argv[1:])))
    from trainers.commands.train_main import train_main as train
    from trainers.networks.config import NetworkConfig

    recipe = take_recipe(MAIN_DEFAULTS, options)
    train(folder, out, NetworkConfig(**options), recipe, overwrite, resume, report)
    click.echo(f"trained {out}; next: canonistia train-sub {folder} --main {out} --out RUNS", err=True)


@click.command("find-lr")
@click.argument("folder", type=DATA, metavar="DATA")
@click.option("--steps", type=click.IntRange(min=20), default=100, show_default=True, help="Steps, of rising rates.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("learning_rate.png"),
    show_default=True,
    help="Where the loss against the rate is drawn.",
)
@_eyes_options("efficientnet_lite0")
@recipe_options(MAIN_DEFAULTS)
def find_lr(folder: Path, steps: int, plot: Path, **options: Any) -> None:
    """Suggest learning rates for train-main: train for some steps while they rise, and see where the loss falls most.

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
@click.option("--main", "main_run", type=FOLDER, required=True, help="A main run of the grown data set.")
@click.option("--subs", type=FOLDER, required=True, help="The submodels of the classes that were there before.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The grown set's new folder.")
@click.option("--negatives", type=click.Choice(POLICIES), default="weighted", show_default=True, help="See train-sub.")
@recipe_options(SUB_DEFAULTS, without=("loss", "label_smoothing"))
def new_class(folder: Path, main_run: Path, subs: Path, out: Path, negatives: str, **options: Any) -> None:
    """Add classes to a cascade: train their submodels alone, and keep all others as they are.

    First train-main on the grown data set, whose old pictures keep their splits; then this; then export with --subs
    OUT, which calibrates and measures everything anew. To train one submodel again, without a class more: train-sub
    --class NAME --overwrite, then export.
    """
    from trainers.commands.new_class import new_class as grow

    growth = grow(folder, main_run, subs, out, negatives, take_recipe(SUB_DEFAULTS, options))
    click.echo(f"trained {', '.join(growth.added)} and kept {len(growth.kept)} submodels in {out}", err=True)


@click.command("train-sub")
@click.argument("folder", type=DATA, metavar="DATA")
@click.option("--main", "main_run", type=FOLDER, required=True, help="The run of the main model.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The submodels' folder.")
@click.option("--overwrite", is_flag=True, help="Replace submodels of the same classes in --out.")
@_RESUME
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Train this class only; may be repeated.")
@click.option(
    "--negatives",
    type=click.Choice(POLICIES),
    default=DEFAULT_POLICY,
    show_default=True,
    help="all: every other picture alike; siblings: only the 5 classes that the main model confuses most with this "
    "one; weighted: all, the confused classes counting up to five times as much; hard: all, the very pictures that a "
    "model which has not seen them mistakes counting up to five times as much.",
)
@click.option("--trunk", type=FOLDER, help="A run of train-main whose fine-tuned backbone all submodels share.")
@features_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="local: one after another; ray: side by side, on this machine or the cluster of $RAY_ADDRESS.",
)
@click.option("--own-networks", is_flag=True, help="Every submodel is a whole network of its own; no shared trunk.")
@_eyes_options("efficientnet_lite2")
@recipe_options(SUB_DEFAULTS, without=("loss", "label_smoothing"))
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
    trunk: Path | None,
    features: "HeadFeatures",
    own_networks: bool,
    engine: Literal["local", "ray"],
    **options: Any,
) -> None:
    """Train the binary submodels, one a class: is the picture of this class, or not?

    By default they share the frozen --backbone as one trunk, so that asking all of them costs one pass.
    """
    from trainers.commands.train_sub import SubmodelPlan
    from trainers.commands.train_sub import train_sub as train
    from trainers.networks.config import NetworkConfig

    if own_networks and trunk:
        raise click.UsageError("--own-networks shares no trunk: leave --trunk out")
    described = ("backbone", "weights", "size", "resize", "colour")
    given = [name for name in described if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if trunk and given:
        raise click.UsageError(f"--trunk brings its own {', '.join(given)}: leave --{' and --'.join(given)} out")
    recipe = take_recipe(SUB_DEFAULTS, options)
    plan = SubmodelPlan(
        NetworkConfig(**options), "own" if own_networks else "shared", trunk, classes, negatives, features, engine
    )
    trained = train(folder, main_run, out, plan, recipe, overwrite, resume)
    click.echo(f"trained {len(trained)} submodels in {out}", err=True)
