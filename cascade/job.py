"""A job of batch classification: from what a command was given to rows in files."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.errors import CanonistiaError
from cascade.inputs import Item, items_of
from cascade.journal import Journal, Terms, check_output, opened_journal
from cascade.loading import load_engine
from cascade.rows import Answered, answer_table, row_file
from cascade.threads import plan

if TYPE_CHECKING:
    from cascade.engine import Engine

Sink = Callable[[Answered], object]
Watched = Callable[[Iterable[Answered]], Iterable[Answered]]


@dataclass(frozen=True)
class Job:
    """What to classify, with what, and where the rows go; without ``out`` they are shown as a table."""

    paths: tuple[Path, ...]
    model: str
    out: Path | None = None
    batch_size: int = 8
    threads: int | None = None
    resume: bool = False
    overwrite: bool = False
    by_hash: bool = False
    any_bundle: bool = False


@dataclass(frozen=True)
class Done:
    """How many rows a job ended with, and how many of them are errors."""

    rows: int
    errors: int


class NothingToClassifyError(CanonistiaError):
    """What was given holds no picture."""


def run(job: Job, show: Callable[[bytes], object], watched: Watched) -> Done | None:
    """Classify everything that a job names; None when its output was finished by an earlier run.

    ``show`` is given blocks of the table; ``watched`` passes the answers on, and may show how far the work is.

    Raises
    ------
    NothingToClassifyError
        There is no picture.
    CanonistiaError
        The bundle is refused, or the output is there already or cannot be written.
    """
    if job.out and not check_output(job.out, job.resume, job.overwrite):
        return None
    shared, items = plan(items_of(job.paths), job.threads)
    first = next(items, None)
    if first is None:
        raise NothingToClassifyError(f"no pictures below {', '.join(map(str, job.paths))}")
    engine = load_engine(job.model, shared.inference)
    # Imported only now: the runtime that the pipeline needs is imported while the bundle is hashed.
    from cascade.pipeline import answers

    rows = errors = 0
    with ExitStack() as stack:
        journal = stack.enter_context(_kept(job, job.out, engine)) if job.out else None
        sinks: list[Sink] = [journal.add if journal else stack.enter_context(answer_table(show))]
        known = journal.known if journal else _unknown
        answered = answers(engine, chain([first], items), shared.workers, 1, job.batch_size, known, job.by_hash)
        for one in watched(answered):
            for sink in sinks:
                sink(one)
            rows += 1
            errors += one.row.error is not None
    return Done(rows, errors)


def _unknown(_: Item) -> None:
    """Know no row."""


@contextmanager
def _kept(job: Job, out: Path, engine: "Engine") -> Iterator[Journal]:
    terms = Terms(engine.bundle.sha256, job.by_hash)
    with opened_journal(out, terms, job.resume, job.any_bundle) as journal:
        yield journal
        with row_file(out) as write:
            for row in journal.rows():
                write(row)
