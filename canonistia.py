"""canonistia: the command line, and ``canonistia.load(...).classify(...)`` from Python."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from cascade.errors import CanonistiaError
from cascade.terminal import printable

if TYPE_CHECKING:
    from os import PathLike

    from cascade.bundle.precision import Precision
    from cascade.inference.engine import Engine
    from cascade.inference.prediction import Prediction
    from export.commands.fit import Fitted
else:
    # Engine needs numpy and onnxruntime, which most commands should not wait for. A type checker reads the imports
    # above instead, so that a misspelt name is still an error.
    def __getattr__(name: str) -> object:
        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = ["CanonistiaError", "Engine", "Prediction", "fit", "load"]

_LAZY = {"Engine": "cascade.inference.engine", "Prediction": "cascade.inference.prediction"}

_COMMANDS = {
    "fit": "export.cli:fit",
    "check-data": "trainers.cli:check_data",
    "backbones": "trainers.cli:backbones",
    "find-lr": "trainers.cli:find_lr",
    "train-main": "trainers.cli:train_main",
    "average": "trainers.cli:average",
    "train-sub": "trainers.cli:train_sub",
    "new-class": "trainers.cli:new_class",
    "export": "export.cli:export",
    "tune": "export.cli:tune",
    "quantize": "export.cli:quantize",
    "benchmark-cascade": "export.cli:benchmark_cascade",
    "evaluate": "cascade.cli:evaluate",
    "classify": "cascade.cli:classify",
    "serve": "webapp.cli:serve",
    "models": "cascade.cli:models",
}
_SERVING = ("cascade", "webapp")
# The packages of each extra, which a serving install leaves out.
_BATCH_EXTRA = ("fsspec", "pyarrow")
_CLUSTER_EXTRA = ("pandas", "ray")
_TRAIN_EXTRA = (
    "accelerate",
    "cleanlab",
    "huggingface_hub",
    "imagehash",
    "matplotlib",
    "onnx",
    "onnxscript",
    "platformdirs",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "threadpoolctl",
    "timm",
    "torch",
    "torchvision",
    "wandb",
)


def load(
    model: "str | PathLike[str]" = "scene15", threads: int | None = None, precision: "Precision" = "float"
) -> "Engine":
    """Return an engine for a bundle: ``canonistia.load("scene15").classify(["photo.jpg"])``.

    Parameters
    ----------
    model
        A bundle's folder, or its name under ``models/``.
    threads
        Threads per inference; by default one for each processor that this process may use.
    precision
        ``float``, ``int8``, or ``auto``: 8-bit integers if the bundle has them and they are faster on this machine.

    Raises
    ------
    CanonistiaError
        There is no such bundle, it is damaged, or its 8-bit form is requested and missing.
    TypeError, ValueError
        An argument is none that there can be.
    """
    from cascade.inference.loading import load_engine

    return load_engine(model, threads, precision)


def fit(
    photos: "str | PathLike[str]",
    out: "str | PathLike[str]",
    minutes: float | None = None,
    test: "str | PathLike[str] | None" = None,
    resume: bool = False,
    overwrite: bool = False,
) -> "Fitted":
    """Train, export and score a cascade within a promised time: ``canonistia.fit("photos", "models/mine")``.

    It needs the train extra. Its progress is shown on standard error.

    Parameters
    ----------
    photos
        A folder with one folder per class, with or without splits, or a manifest.
    out
        The new bundle's folder; the runs and the plan are in a folder beside it that ends with ``.runs``.
    minutes
        Time that everything may take on this machine; 20, or, when resumed, what was promised at first.
    test
        Pictures to score the result on; by default the test split of ``photos``, if it has one.
    resume
        Continue a stopped fit by its plan; start it if there is none.
    overwrite
        Replace an earlier fit and its bundle.

    Raises
    ------
    CanonistiaError
        The pictures are not usable, the time is too little for anything, or ``out`` is taken.
    """
    from pathlib import Path

    from export.commands.fit import FitRequest
    from export.commands.fit import fit as run

    tested = None if test is None else Path(test)
    return run(FitRequest(Path(photos), Path(out), minutes, tested, resume, overwrite))


class _Commands(click.Group):
    """A group that imports a command's package only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        if not module.startswith(_SERVING):
            _check_current_folder()  # PyTorch's libraries would end the process
        return getattr(import_module(module), name)

    def make_context(self, *words: Any, **options: Any) -> click.Context:
        with _told_in_a_sentence():
            return super().make_context(*words, **options)

    def invoke(self, ctx: click.Context) -> object:
        with _told_in_a_sentence():
            return super().invoke(ctx)


@contextmanager
def _told_in_a_sentence() -> Iterator[None]:
    """Turn what a user, or the one who runs the machine, can correct into click's errors, which show no traceback."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # an error of the last rows is one of this command, not of Python's end
    except click.ClickException as error:
        vars(error)["message"] = printable(error.message)
        raise
    except CanonistiaError as error:
        raise click.ClickException(str(error)) from error
    except ModuleNotFoundError as error:
        extras = {"batch": _BATCH_EXTRA, "cluster": _CLUSTER_EXTRA, "train": _TRAIN_EXTRA}
        extra = next((extra for extra, names in extras.items() if error.name in names), None)
        if extra is None:
            raise
        raise click.ClickException(
            f"this command needs {error.name}, which the serving install leaves out; "
            f"install canonistia with its {extra} extra: pip install '.[{extra}]' in the source folder"
        ) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever reads the rows has had enough, and click ends in silence
            raise
        _drop_unwritten()
        raise click.ClickException(_refused_by_system(error)) from error


def _drop_unwritten() -> None:
    """Let Python end without another try to write what standard output did not take."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _check_current_folder() -> None:
    """Raise click.ClickException where the current folder is deleted or forbidden."""
    try:
        os.getcwd()  # fails where it is deleted
        os.stat(".")  # fails where it is forbidden
    except OSError as error:
        raise click.ClickException(
            f"the current folder cannot be used ({error.strerror}); change to another one"
        ) from error


def _refused_by_system(error: OSError) -> str:
    _check_current_folder()
    what = f" '{os.fsdecode(error.filename)}'" if isinstance(error.filename, str | bytes) else ""
    advice = "free some space, or look at the permissions of what is read and written"
    return f"the system refused a file or a device{what} ({error.strerror or error}); {advice}"


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="canonistia")
def main() -> None:
    """Train, export and serve a two-stage picture classifier that knows when it is unsure."""


if __name__ == "__main__":
    main()
