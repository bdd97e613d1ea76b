"""A job checks which of its options go together, and the command line shows it as wrong usage."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.batch.job import Execution, Job, Model, Output, Sorting
from cascade.errors import UsageError
from tests.conftest import Run

ROWS = Path("rows.csv")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (lambda: Output(path=Path("rows.txt")), "rows.txt ends in '.txt'; expected .csv, .jsonl or .parquet"),
        (lambda: Output(resume=True), "--resume needs the --out of the stopped run"),
        (lambda: Output(path=ROWS, resume=True, overwrite=True), "cannot be used with --overwrite"),
        (lambda: Output(path=ROWS, partition="label_1"), "--partition needs an --out that ends in .parquet"),
        (lambda: Sorting(dry_run=True), "--dry-run needs --sort-into"),
        (lambda: Execution(workers=2), "--address and --workers need --engine ray"),
        (lambda: Execution(engine="ray", threads=2), "--threads and --device need --engine local"),
        (lambda: Execution(engine="ray", device="cuda"), "--threads and --device need --engine local"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        options()


def test_a_job_needs_only_inputs_and_a_model() -> None:
    job = Job(inputs=("a.png",), model=Model(name="tiny"))
    assert job.output.path is job.sorting.folder is job.report is None
    assert job.execution.engine == "local"


def test_the_command_line_names_the_command_and_the_option(run: Run, tmp_path: Path) -> None:
    result = run("classify", tmp_path, "--out", "rows.txt")
    assert result.exit_code == 2
    assert "Usage: " in result.output
    assert "classify [OPTIONS] PATH..." in result.output
    expected = "Error: Invalid value for --out: rows.txt ends in '.txt'; expected .csv, .jsonl or .parquet"
    assert expected in result.output
    result = run("classify", tmp_path, "--dry-run")
    assert result.exit_code == 2
    assert "Error: --dry-run needs --sort-into" in result.output


def test_an_ending_in_capitals_is_the_same_ending() -> None:
    assert Output(path=Path("ROWS.PARQUET"), partition="label_1").is_parquet
