"""Opening a run's folder: for a new run, one that replaces another, or one that is resumed."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from cascade.errors import CanonistiaError
from cascade.files import aside, write_json
from cascade.locks import exclusive
from trainers.distributed.process_context import ProcessContext
from trainers.recipe import MAIN_DEFAULTS
from trainers.runs.folder import SUMMARY, has_checkpoint, is_started, put_back, read_config


@contextmanager
def open_run(
    folder: Path, config: dict[str, Any], overwrite: bool, resumed: bool, process: ProcessContext
) -> Iterator[bool]:
    """Open the folder of a new or resumed run, in every process; yield False when the run is finished already.

    Raises
    ------
    CanonistiaError
        The run that is to be resumed has other settings, a new folder cannot be written, or another process writes it.
    """
    if resumed:
        check_same_config(folder, read_config(folder), config)
        finished = (folder / SUMMARY).exists()
        if finished and process.is_main:
            click.echo(f"{folder} is finished; there is nothing to resume", err=True)
        with _written(folder) if process.is_main and not finished else nullcontext():
            yield not finished
    elif not process.is_main:
        process.wait()  # for the main process to make the folder
        yield True
    else:
        with _written(folder, lambda: _new_folder(folder, overwrite)):
            write_json(folder / "config.json", config)
            process.wait()
            yield True


def check_run_folder(folder: Path, overwrite: bool) -> None:
    """Raise CanonistiaError when a run may not be written into a folder."""
    if not folder.exists() or (folder.is_dir() and all(path.suffix == ".partial" for path in folder.iterdir())):
        return
    if not overwrite or not is_started(folder):
        raise CanonistiaError(
            f"{folder} is not empty; choose another --out, --overwrite an earlier run, or --resume an interrupted one"
        )


def check_same_config(folder: Path, there: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise CanonistiaError unless a resumed run has the settings that it was started with.

    A setting that did not exist when the run was started has its default.
    """
    if there.get("classes") != given["classes"]:
        raise CanonistiaError(
            f"{folder} was trained on the classes {', '.join(there.get('classes') or ['(none)'])}; the data has "
            f"{', '.join(given['classes'])}: start a new run when a class is added or removed"
        )
    # The tracker, the number of worker processes and the cache do not change the result.
    free = {"tracker", "workers", "code_version", "cache"}
    before = {**MAIN_DEFAULTS.as_dict(), **there}
    changed = sorted(name for name in {*before, *given} - free if before.get(name) != given.get(name))
    if changed:
        raise CanonistiaError(
            f"{folder} was started with other settings ("
            + ", ".join(f"{name} {before.get(name)!r}, now {given.get(name)!r}" for name in changed)
            + "); resume it with the same ones, or start another --out"
        )


@contextmanager
def _written(folder: Path, begin: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a run's lock; an earlier run that was moved aside is removed once the new one has a checkpoint.

    If the new one fails before, or its process is killed, the earlier run is put back, here or by the next reader.
    ``begin`` makes the folder of a new run.
    """
    with exclusive(folder):
        if begin:
            begin()
        try:
            yield
        finally:
            if begin and not has_checkpoint(folder):
                shutil.rmtree(folder, ignore_errors=True)
            put_back(folder)
            if has_checkpoint(folder):  # else the earlier run is all that is left
                shutil.rmtree(aside(folder), ignore_errors=True)


def _new_folder(folder: Path, overwrite: bool) -> None:
    """Make an empty run folder; an earlier run is moved aside.

    Raises
    ------
    CanonistiaError
        The folder is not empty and ``overwrite`` is not set or it is no run, or it cannot be written.
    """
    put_back(folder)
    check_run_folder(folder, overwrite)
    try:
        if folder.exists():
            shutil.rmtree(aside(folder), ignore_errors=True)
            os.replace(folder, aside(folder))
        folder.mkdir()
    except OSError as error:
        put_back(folder)
        raise CanonistiaError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
