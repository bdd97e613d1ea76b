"""A job of batch classification: from what a command was given to rows in files."""

import gc
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cascade.bundle.precision import Precision
from cascade.bundle.reading import Bundle
from cascade.inference.loading import load_bundle, load_engine
from cascade.inputs.item import Item
from cascade.inputs.remote import READERS, is_address
from cascade.inputs.sources import InputError, check_words, items_of_words
from cascade.outputs.rows import Answered, answer_table, check_output, row_file
from cascade.threads import BATCH_SIZE, Plan, plan

if TYPE_CHECKING:
    from cascade.inference.sessions import Device
    from cascade.outputs.journal import Journal
    from cascade.outputs.sorting import Way

Place = Literal["local", "ray"]
Sink = Callable[[Answered], object]
Watched = Callable[[Iterable[Answered]], Iterable[Answered]]
Answers = Callable[[Iterable[Item], "Journal | None"], Generator[Answered, None, None]]


@dataclass(frozen=True)
class Job:
    """What to classify, with what, and where the rows go; without ``out`` they are shown as a table."""

    words: tuple[str, ...]  # see cascade.inputs.sources
    model: str
    out: Path | None = None
    batch_size: int = BATCH_SIZE
    threads: int | None = None
    resume: bool = False
    overwrite: bool = False
    by_hash: bool = False
    any_bundle: bool = False
    partition: str | None = None  # a column: a folder of Parquet files, with one folder inside for each value
    sort_into: Path | None = None  # where copies go, in a folder for each class
    sort_by: "Way" = "copy"
    dry_run: bool = False  # sort_into says what it would do
    report: Path | None = None  # a page about the rows
    precision: Precision = "float"
    device: "Device" = "cpu"
    engine: Place = "local"
    address: str | None = None  # of a Ray cluster
    workers: int | None = None  # of Ray
    main_only: bool = False  # nothing is routed


@dataclass(frozen=True)
class Done:
    """How many rows a job ended with, and how many of them are errors."""

    rows: int
    errors: int


def run(job: Job, show: Callable[[bytes], object], watched: Watched) -> Done | None:
    """Classify everything that a job names; None when its output was finished by an earlier run.

    ``show`` is given blocks of the table; ``watched`` passes the answers on, and may show how far the work is.

    Raises
    ------
    InputError
        There is no picture.
    CanonistiaError
        The bundle is refused, or the output is there already or cannot be written.
    """
    for path in (job.out, job.report):
        if path and not check_output(path, job.resume, job.overwrite) and path == job.out:
            return None
    if job.out and job.out.suffix == ".parquet":
        import_module("pyarrow")  # now, and not when all the work is done
    if job.engine == "ray":
        import_module("cascade.batch.cluster")
    check_words(job.words)
    shared, items = plan(items_of_words(job.words), job.threads)
    first = next(items, None)
    if first is None:
        raise InputError(f"no pictures below {', '.join(job.words)}")
    rows = errors = 0
    with ExitStack() as stack:
        bundle, answers = stack.enter_context(_on_ray(job)) if job.engine == "ray" else _here(job, shared)
        journal = stack.enter_context(_kept(job, job.out, bundle)) if job.out else None
        sinks: list[Sink] = [journal.add] if journal else []
        sinks += [stack.enter_context(sink) for sink in _asked(job, show)]
        if not sinks:
            sinks = [stack.enter_context(answer_table(show))]
        answered = stack.enter_context(closing(answers(chain([first], items), journal)))
        for one in watched(answered):
            for sink in sinks:
                sink(one)
            rows += 1
            errors += one.row.error is not None
    return Done(rows, errors)


def _here(job: Job, shared: Plan) -> tuple[Bundle, Answers]:
    engine = load_engine(job.model, shared.inference, job.precision, job.device, job.main_only)
    # Modules stay as long as the process: no collection, least of all the one at its end, need walk through them.
    gc.freeze()
    # Imported only now: the runtime that the pipeline needs is imported while the bundle is hashed.
    from cascade.batch.pipeline import answers

    # A store is slow to answer and answers many at once.
    readers = READERS if any(map(is_address, job.words)) else min(1, shared.workers)

    def answered(items: Iterable[Item], journal: "Journal | None") -> Generator[Answered, None, None]:
        known = journal.known if journal else _unknown
        return answers(engine, items, shared.workers, readers, job.batch_size, known, job.by_hash)

    return engine.bundle, answered


@contextmanager
def _on_ray(job: Job) -> Iterator[tuple[Bundle, Answers]]:
    from cascade.batch.cluster import opened_cluster

    bundle = load_bundle(job.model, job.precision, job.main_only)
    with opened_cluster(bundle, job.address, job.workers, job.batch_size, job.by_hash) as cluster:
        yield bundle, cluster.answers


def _unknown(_: Item) -> None:
    """Know no row."""


def _asked(job: Job, show: Callable[[bytes], object]) -> Iterator[AbstractContextManager[Sink]]:
    # What most jobs do without is imported only when asked for: one picture should not wait for it.
    if job.sort_into:
        from cascade.outputs.sorting import Sorter

        yield nullcontext(Sorter(job.sort_into, job.sort_by, job.dry_run, show).add)
    if job.report:
        yield _reported(job.report)


@contextmanager
def _reported(path: Path) -> Iterator[Sink]:
    from cascade.outputs.report import Report

    report = Report("Pictures classified by canonistia")
    yield report.add
    report.write(path)


@contextmanager
def _kept(job: Job, out: Path, bundle: Bundle) -> Iterator["Journal"]:
    from cascade.outputs.journal import Terms, opened_journal

    terms = Terms(bundle.sha256, job.by_hash)
    with opened_journal(out, terms, job.resume, job.any_bundle) as journal:
        yield journal
        if out.suffix == ".parquet":
            from cascade.outputs.parquet import write_parquet

            write_parquet(out, journal.rows(), job.partition)
            return
        with row_file(out) as write:
            for row in journal.rows():
                write(row)
