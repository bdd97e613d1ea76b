"""A job of batch classification: from the options of a command to rows in files."""

import gc
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cascade.bundle.precision import Precision
from cascade.bundle.reading import Bundle
from cascade.errors import UsageError
from cascade.images.folders import PassedOver, PictureFilter
from cascade.inference.loading import load_bundle, load_engine
from cascade.inputs.item import Item
from cascade.inputs.remote import READERS, is_address
from cascade.inputs.sources import check_inputs, items_of_inputs, no_pictures
from cascade.locks import exclusive
from cascade.outputs.rows import Answered, answer_table, check_output, row_file
from cascade.threads import BATCH_SIZE, Plan, plan

if TYPE_CHECKING:
    from cascade.inference.sessions import Device
    from cascade.outputs.journal import Journal
    from cascade.outputs.sorting import Sorter, Way

Sink = Callable[[Answered], object]
Watched = Callable[[Iterable[Answered]], Iterable[Answered]]
Answers = Callable[[Iterable[Item], "Journal | None"], Generator[Answered, None, None]]

ENDINGS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which bundle answers, in which form.

    ``name`` is its folder or its name; with ``main_only`` nothing is routed.
    """

    name: str
    precision: Precision = "float"
    main_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where the rows go, and what happens to rows that are there already; without ``path`` a table is shown.

    ``partition`` names a column: ``path`` is then a folder of Parquet files, with one folder per value. ``by_hash``
    detects changed files by their content. ``any_bundle`` resumes with another bundle.

    Raises
    ------
    UsageError
        Options that do not go together.
    """

    path: Path | None = None
    partition: str | None = None
    resume: bool = False
    overwrite: bool = False
    by_hash: bool = False
    any_bundle: bool = False

    def __post_init__(self) -> None:
        """Check which options go together."""
        if self.path and self.path.suffix.lower() not in ENDINGS:
            expected = f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
            raise UsageError(f"{self.path} ends in '{self.path.suffix}'; expected {expected}", option="--out")
        if self.resume and (self.overwrite or not self.path):
            raise UsageError("--resume needs the --out of the stopped run, and cannot be used with --overwrite")
        if self.partition and not self.is_parquet:
            raise UsageError("--partition needs an --out that ends in .parquet")

    @property
    def is_parquet(self) -> bool:
        """Return whether the rows go into Parquet."""
        return self.path is not None and self.path.suffix.lower() == ".parquet"


@dataclass(frozen=True, kw_only=True)
class Sorting:
    """Whether and how pictures are put into one folder per class below ``folder``; a dry run only says where.

    Raises
    ------
    UsageError
        A dry run of nothing.
    """

    folder: Path | None = None
    way: "Way" = "copy"
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Check which options go together."""
        if self.dry_run and not self.folder:
            raise UsageError("--dry-run needs --sort-into")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What does the work: threads of this process, or Ray's ``workers`` on the cluster at ``address``.

    Raises
    ------
    UsageError
        Options that do not go together.
    """

    engine: Literal["local", "ray"] = "local"
    batch_size: int = BATCH_SIZE
    threads: int | None = None
    device: "Device" = "cpu"
    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Check which options go together."""
        if self.engine == "local" and (self.address or self.workers):
            raise UsageError("--address and --workers need --engine ray")
        if self.engine == "ray" and (self.threads or self.device != "cpu"):
            raise UsageError("--threads and --device need --engine local; each of Ray's --workers has one core")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to classify, with what, and where the answers go.

    ``inputs`` are described in :mod:`cascade.inputs.sources`; ``exclude`` are patterns of what is passed over inside of
    them (:class:`cascade.images.folders.PictureFilter`); ``report`` is where a page about the rows is written.
    """

    inputs: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    model: Model
    output: Output = field(default_factory=Output)
    sorting: Sorting = field(default_factory=Sorting)
    report: Path | None = None
    execution: Execution = field(default_factory=Execution)


@dataclass(frozen=True)
class Done:
    """The number of rows of a job, the number of errors among them, and what was passed over beside the pictures.

    Of the answers, ``judged`` say whether they are accepted, and ``accepted`` of them are.
    """

    rows: int
    errors: int
    passed: PassedOver
    judged: int
    accepted: int


def run(job: Job, show: Callable[[bytes], object], watched: Watched) -> Done | None:
    """Classify everything that a job names; return None if an earlier run finished its output.

    ``show`` prints blocks of the table; ``watched`` passes the answers on, and may show progress.

    Raises
    ------
    UsageError
        There is no picture.
    CanonistiaError
        The bundle is refused, or the output exists already or cannot be written.
    """
    if not job.output.path:
        return _run(job, show, watched)
    with exclusive(job.output.path):
        return _run(job, show, watched)


def _run(job: Job, show: Callable[[bytes], object], watched: Watched) -> Done | None:
    output = job.output
    for path in (output.path, job.report):
        if path and not check_output(path, output.resume, output.overwrite) and path == output.path:
            return None
    if output.is_parquet:
        import_module("pyarrow")  # an error now, and not after all the work
    if job.execution.engine == "ray":
        import_module("cascade.batch.cluster")
    check_inputs(job.inputs, job.exclude)
    chosen = PictureFilter(job.exclude)
    shared, items = plan(items_of_inputs(job.inputs, chosen), job.execution.threads)
    first = next(items, None)
    if first is None:
        raise no_pictures(", ".join(job.inputs), chosen)
    rows = errors = judged = accepted = 0
    with ExitStack() as stack:
        bundle, answers = stack.enter_context(_on_ray(job)) if job.execution.engine == "ray" else _here(job, shared)
        journal = stack.enter_context(_kept(output, output.path, bundle)) if output.path else None
        sinks: list[Sink] = [journal.add] if journal else []
        sinks += [stack.enter_context(sink) for sink in _further_sinks(job, chosen.passed, show)]
        if not sinks:
            sinks = [stack.enter_context(answer_table(show))]
        answered = stack.enter_context(closing(answers(chain([first], items), journal)))
        for one in watched(answered):
            for sink in sinks:
                sink(one)
            rows += 1
            errors += one.row.error is not None
            judged += one.row.accepted is not None
            accepted += bool(one.row.accepted)
    return Done(rows, errors, chosen.passed, judged, accepted)


def _here(job: Job, shared: Plan) -> tuple[Bundle, Answers]:
    model, execution = job.model, job.execution
    engine = load_engine(model.name, shared.inference, model.precision, execution.device, model.main_only)
    # Modules live as long as the process: the garbage collector need not scan them, above all not at its end.
    gc.freeze()
    # Imported only here: the runtime that the pipeline needs was imported while the bundle was hashed.
    from cascade.batch.pipeline import answers

    # A store answers slowly, and many requests at once.
    readers = READERS if any(map(is_address, job.inputs)) else min(1, shared.workers)

    def answered(items: Iterable[Item], journal: "Journal | None") -> Generator[Answered, None, None]:
        known = journal.known if journal else _unknown
        return answers(engine, items, shared.workers, readers, execution.batch_size, known, job.output.by_hash)

    return engine.bundle, answered


@contextmanager
def _on_ray(job: Job) -> Iterator[tuple[Bundle, Answers]]:
    from cascade.batch.cluster import opened_cluster

    execution = job.execution
    bundle = load_bundle(job.model.name, job.model.precision, job.model.main_only)
    with opened_cluster(
        bundle, execution.address, execution.workers, execution.batch_size, job.output.by_hash
    ) as cluster:
        yield bundle, cluster.answers


def _unknown(_: Item) -> None:
    """Return no row: nothing is known without a journal."""


def _further_sinks(
    job: Job, passed: PassedOver, show: Callable[[bytes], object]
) -> Iterator[AbstractContextManager[Sink]]:
    # Imported only when needed: classifying one picture should not wait for them.
    if folder := job.sorting.folder:
        from cascade.outputs.sorting import Sorter

        sorter = Sorter(folder, job.sorting.way, job.sorting.dry_run, show)
        yield nullcontext(sorter.add) if job.sorting.dry_run else _sorted(sorter)
    if job.report:
        yield _reported(job.report, passed)


@contextmanager
def _sorted(sorter: "Sorter") -> Iterator[Sink]:
    with exclusive(sorter.folder, inside=True):
        yield sorter.add


@contextmanager
def _reported(path: Path, passed: PassedOver) -> Iterator[Sink]:
    from cascade.outputs.report import Report

    report = Report("Pictures classified by canonistia", passed)
    yield report.add
    report.write(path)


@contextmanager
def _kept(output: Output, path: Path, bundle: Bundle) -> Iterator["Journal"]:
    from cascade.outputs.journal import Terms, opened_journal

    terms = Terms(bundle.sha256, output.by_hash)
    with opened_journal(path, terms, output.resume, output.any_bundle) as journal:
        yield journal
        if output.is_parquet:
            from cascade.outputs.parquet import write_parquet

            write_parquet(path, journal.rows(), output.partition)
            return
        with row_file(path) as write:
            for row in journal.rows():
                write(row)
