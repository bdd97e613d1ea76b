"""The commands that need no training: classify, evaluate, models."""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from cascade.destinations import NewFile, NewFolder
from cascade.errors import UsageError
from cascade.inputs.containers import CONTAINERS
from cascade.progress import CountedAside, line_per_minute
from cascade.terminal import printable
from cascade.threads import BATCH_SIZE, keep_blas_single

if TYPE_CHECKING:
    from cascade.batch.job import Done
    from cascade.bundle.precision import Precision
    from cascade.inference.sessions import Device
    from cascade.outputs.rows import Answered

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

EXIT_SOME_ERRORS = 3
FIRST_ANSWERS = 200  # after so many, classify says how many of them are accepted
PARTITIONS = ("label_1", "label_2", "stage", "unsure", "both", "accepted")
# The names in cascade.images.degradations, which imports numpy.
DEGRADATION_KINDS = (
    *("blur", "defocus", "motion", "noise", "jpeg", "low_resolution", "brightness", "contrast", "gamma", "haze"),
    *("rotation", "wide", "tall", "grey"),
)


def model_option(command: F) -> F:
    """Add ``--model`` to a command."""
    return click.option(
        "--model",
        default="scene15",
        show_default=True,
        help="A bundle's folder, or its name under models/ ('canonistia models' lists them).",
    )(command)


def precision_option(command: F) -> F:
    """Add ``--precision`` to a command."""
    return click.option(
        "--precision",
        type=click.Choice(("float", "int8", "auto")),
        default="float",
        show_default=True,
        help="Networks in floating point or in 8-bit integers; auto: 8 bits where the bundle has them ('canonistia "
        "quantize') and they were measured to be faster on this kind of processor.",
    )(command)


def threads_option(command: F) -> F:
    """Add ``--threads`` to a command."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="Number of threads. Default: one per core that the process may use (affinity and cgroup quota).",
    )(command)


def _naming_containers(command: F) -> F:
    command.__doc__ = str(command.__doc__).format(containers=", ".join(one.what for one in CONTAINERS))
    return command


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="PATH...")
@model_option
@click.option(
    "--out",
    type=NewFile(folders=(".parquet",)),
    help="Write rows to FILE.csv, FILE.jsonl or FILE.parquet instead of showing a table.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Pass over what matches inside folders, archives and addresses, as in .gitignore: a name at any depth "
    "(thumbs, '*_small.jpg'), or a path below PATH ('raw/*.jpg', '**/old/'); may be repeated.",
)
@click.option(
    "--partition",
    type=click.Choice(PARTITIONS),
    help="Write a Parquet --out as a folder, with one subfolder per value of this column.",
)
@click.option("--sort-into", type=NewFolder(), help="Put pictures into DIR/<most likely class>/.")
@click.option(
    "--sort-by",
    type=click.Choice(("copy", "link")),
    default="copy",
    show_default=True,
    help="Whether --sort-into copies or links pictures.",
)
@click.option("--dry-run", is_flag=True, help="Show where --sort-into would put each picture, and write nothing there.")
@click.option(
    "--report",
    type=NewFile(),
    help="Write an HTML report: counts, speed, the most doubtful pictures, errors by cause.",
)
@click.option("--resume", is_flag=True, help="Resume a stopped run; only new and changed files are read.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --out, and discard the rows of a stopped run.")
@click.option(
    "--hash", "by_hash", is_flag=True, help="Detect changed files by content (SHA-256), not by size and time."
)
@click.option(
    "--allow-other-model", is_flag=True, help="Allow --resume with another bundle; the rows of both are kept."
)
@click.option(
    "--batch-size", type=click.IntRange(1, 1024), default=BATCH_SIZE, show_default=True, help="Images per batch."
)
@precision_option
@click.option(
    "--main-only",
    is_flag=True,
    help="Route nothing: the main model answers alone, which is faster and makes more mistakes ('canonistia evaluate' "
    "shows how many on your pictures).",
)
@click.option(
    "--device",
    type=click.Choice(("cpu", "cuda")),
    default="cpu",
    show_default=True,
    help="Device of the models. cuda: an NVIDIA GPU; needs onnxruntime-gpu and a larger --batch-size to be fast.",
)
@threads_option
@click.option(
    "--engine",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="local: threads of this process; ray: workers of a Ray cluster. The rows are the same.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Address of a Ray cluster that this machine is a node of, or 'auto'. Default: $RAY_ADDRESS, else a cluster on "
    "this machine alone.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of Ray workers, one core each. Default: one per core of the cluster.",
)
@_naming_containers
def classify(
    inputs: tuple[str, ...],
    model: str,
    exclude: tuple[str, ...],
    out: Path | None,
    partition: str | None,
    sort_into: Path | None,
    sort_by: Literal["copy", "link"],
    dry_run: bool,
    report: Path | None,
    resume: bool,
    overwrite: bool,
    by_hash: bool,
    allow_other_model: bool,
    batch_size: int,
    precision: "Precision",
    main_only: bool,
    device: "Device",
    threads: int | None,
    engine: Literal["local", "ray"],
    address: str | None,
    workers: int | None,
) -> None:
    """Find the two most likely classes of each picture.

    Each PATH is a picture, a folder (its subfolders are included), {containers}, an address of any of these
    (s3://bucket/photos, s3://bucket/shards/*.tar), a pattern in quotes ('photos/**/*.jpg'), @FILE for a list with one
    path per line, or - for a list on standard input.

    What folders and archives hold beside pictures (by its first bytes where the ending of a name says nothing), hidden
    names and those of systems, and what --exclude matches are passed over, and counted on standard error.

    With --out, rows are saved in FILE.progress during the run, and FILE appears when it is complete. To resume a run
    that was stopped, even by a power cut, repeat the command with --resume.

    Exit status: 0 if every file was answered, 3 if some rows are errors, 2 for wrong usage or no picture at all, 1 for
    any other error. What is passed over does not change it.
    """
    keep_blas_single()
    from cascade.batch.job import Execution, Job, Model, Output, Sorting, run
    from cascade.inputs.sources import picture_count

    try:
        job = Job(
            inputs=inputs,
            exclude=exclude,
            model=Model(name=model, precision=precision, main_only=main_only),
            output=Output(
                path=out,
                partition=partition,
                resume=resume,
                overwrite=overwrite,
                by_hash=by_hash,
                any_bundle=allow_other_model,
            ),
            sorting=Sorting(folder=sort_into, way=sort_by, dry_run=dry_run),
            report=report,
            execution=Execution(
                engine=engine,
                batch_size=batch_size,
                threads=threads,
                device=device,
                address=address,
                workers=workers,
            ),
        )
        total = partial(picture_count, inputs, exclude)
        done = run(job, click.echo, lambda answered: accepted_aside(counted(answered, total)))
    except UsageError as error:
        raise _usage_error(error) from error
    except KeyboardInterrupt:
        if out:
            click.echo(
                f"\nstopped; the rows so far are kept: run again with --resume --out {shlex.quote(str(out))}", err=True
            )
        raise
    _say_what_was_done(done, out)
    if done and done.errors:
        sys.exit(EXIT_SOME_ERRORS)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path), metavar="DATA")
@model_option
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as one JSON object.")
@click.option(
    "--plots",
    type=NewFolder(),
    help="Write plots into this folder: confusion matrix, reliability diagram, accuracy against share routed, "
    "and the stress test if there is one.",
)
@click.option(
    "--outside",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of out-of-distribution pictures (of none of the classes): measure how well doubt detects them.",
)
@click.option(
    "--pairs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV table with the columns path, class_a and class_b, of pictures that show two of the classes: measure how "
    "often both are named, and marked.",
)
@click.option(
    "--stress",
    is_flag=True,
    help="Measure also on the same pictures made worse: each kind of degradation (blur, noise, JPEG, haze, ...) at "
    "three strengths. Takes about 40 times as long.",
)
@click.option(
    "--stress-kind",
    "stress_kinds",
    multiple=True,
    metavar="KIND",
    type=click.Choice(DEGRADATION_KINDS),
    help=f"Measure under this kind alone; may be repeated. Kinds: {', '.join(DEGRADATION_KINDS)}.",
)
@precision_option
@threads_option
def evaluate(
    folder: Path,
    model: str,
    as_json: bool,
    plots: Path | None,
    outside: Path | None,
    pairs: Path | None,
    stress: bool,
    stress_kinds: tuple[str, ...],
    precision: "Precision",
    threads: int | None,
) -> None:
    """Measure a bundle on labelled pictures: the main model alone, and the cascade.

    DATA is a folder with one folder per class, or a manifest (see check-data): of one with splits, the test split is
    measured, else the validation split; of one with a column source, each source is measured, too. Every accuracy has
    its 95% interval (Wilson), and every share of --pairs an exact one (Clopper and Pearson). In the seed score a
    doubtful answer (two probabilities that differ by less than 0.2) gets 0.8 if the first class is true and 0.6 if the
    second is; any other answer gets 1 if the first class is true, else 0.
    """
    keep_blas_single()
    from cascade.evaluation.evaluation import evaluate as run
    from cascade.evaluation.evaluation import labelled_pictures
    from cascade.evaluation.pairs import evaluate_pairs, read_pairs
    from cascade.evaluation.text import describe
    from cascade.images.folders import passed_over, pictures_below
    from cascade.inference.loading import load_engine
    from cascade.threads import processors

    if plots:
        from cascade.evaluation.plots import write_plots
    out_of_distribution = pictures_below(outside) if outside else []
    if outside and not out_of_distribution:
        raise click.BadParameter(
            f"no pictures below {outside}; {passed_over(outside).describe() or 'it is empty'}", param_hint="--outside"
        )
    workers = threads or processors()
    engine = load_engine(model, 1, precision)
    pictures = labelled_pictures(folder, engine.classes)
    of_two = read_pairs(pairs, engine.classes) if pairs else []
    paths = progress((picture.path for picture in pictures), len(pictures))
    labels, sources = [picture.label for picture in pictures], [picture.source for picture in pictures]
    evaluation = run(engine, paths, labels, out_of_distribution, workers, sources)
    for place in (folder, outside):
        if place and place.is_dir() and (passed := passed_over(place).describe()):
            click.echo(f"{place}: {passed}", err=True)
    report = evaluation.report()
    if of_two:
        report["pairs"] = evaluate_pairs(engine, of_two, evaluation.output, workers)
    if stress or stress_kinds:
        from cascade.evaluation.stress import stress as run_stress

        paths = progress((picture.path for picture in pictures), len(pictures))
        report["stress"] = run_stress(engine, paths, labels, stress_kinds or DEGRADATION_KINDS, workers).report()
    click.echo(json.dumps(report, indent=2) if as_json else describe(report))
    if plots:
        for path in write_plots(evaluation, report, plots):
            click.echo(f"wrote {path}", err=True)


@click.command()
def models() -> None:
    """List the bundles found, with size and measured accuracy."""
    from cascade.bundle.lookup import bundle_folders, list_bundles
    from cascade.bundle.reading import BundleError, read_manifest

    found = list_bundles()
    if not found:
        click.echo("no bundles in " + ", ".join(str(folder) for folder in bundle_folders()), err=True)
    for folder in found:
        try:
            manifest, _ = read_manifest(folder)
        except BundleError as error:
            click.echo(f"{printable(folder.name)}: {error}")
            continue
        size = sum(entry.size for entry in manifest.files) / 1e6
        figures = manifest.measured.cascade
        low, high = figures.top1_interval
        click.echo(
            f"{printable(folder.name)}: {len(manifest.classes)} classes, {size:.1f} MB, top 1 {figures.top1:.4f} "
            f"[{low:.4f}, {high:.4f}], top 2 {figures.top2:.4f} ({manifest.measured.pictures} "
            f"{printable(manifest.measured.split)} pictures, out of fold)  {printable(str(folder))}"
        )


def _say_what_was_done(done: "Done | None", out: Path | None) -> None:
    if done is None:
        click.echo(
            f"{out} is complete: there is nothing to resume; use --overwrite to classify everything again", err=True
        )
        return
    if out:
        click.echo(f"{done.rows} rows in {out}" + (f", {done.errors} of them errors" if done.errors else ""), err=True)
    if done.judged:
        click.echo(
            f"{done.accepted} of {done.judged} answers are accepted; look at the other {done.judged - done.accepted} "
            "yourself",
            err=True,
        )
    if passed := done.passed.describe():
        click.echo(passed, err=True)


def _usage_error(error: UsageError) -> click.UsageError:
    return click.BadParameter(str(error), param_hint=error.option) if error.option else click.UsageError(str(error))


def accepted_aside(answered: Iterable["Answered"]) -> Iterator["Answered"]:
    """Yield the answers, and say on standard error how many of the first ``FIRST_ANSWERS`` are accepted."""
    judged = accepted = 0
    for one in answered:
        yield one
        if one.row.accepted is not None:
            judged += 1
            accepted += one.row.accepted
            if judged == FIRST_ANSWERS:
                click.echo(f"of the first {judged} answers {accepted} are accepted", err=True)


def progress(items: Iterable[T], total: int) -> Iterator[T]:
    """Yield the items and show progress on standard error: a bar unless the work is short, or a line per minute."""
    if not os.isatty(2):
        yield from line_per_minute(items, "evaluate", total)
        return
    if total < 100:
        yield from items
        return
    with click.progressbar(items, total, file=sys.stderr, show_pos=True) as shown:
        yield from shown


def counted(items: Iterable[T], total: Callable[[], int | None]) -> Iterator[T]:
    """Yield the items and show count and speed on standard error, on a terminal at once, else in a line per minute."""
    if not os.isatty(2):
        yield from line_per_minute(items, "classify", CountedAside(total))
        return
    started = shown = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown > 0.5:
            click.echo(f"\r{number:,} pictures, {number / (now - started):.0f} per second ", nl=False, err=True)
            shown = now
    if shown > started:
        click.echo(err=True)
