"""canonistia: the command line, and ``canonistia.load(...).classify(...)`` from Python."""

from importlib import import_module
from typing import TYPE_CHECKING

import click

from cascade.errors import CanonistiaError

if TYPE_CHECKING:
    from cascade.bundle.precision import Precision
    from cascade.inference.engine import Engine
    from cascade.inference.prediction import Prediction
else:
    # Engine needs numpy and onnxruntime, which most commands should not wait for. A type checker reads the imports
    # above instead, so that a misspelt name is still an error.
    def __getattr__(name: str) -> object:
        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = ["CanonistiaError", "Engine", "Prediction", "load"]

_LAZY = {"Engine": "cascade.inference.engine", "Prediction": "cascade.inference.prediction"}

_COMMANDS = {
    "check-data": "trainers.cli:check_data",
    "backbones": "trainers.cli:backbones",
    "find-lr": "trainers.cli:find_lr",
    "train-main": "trainers.cli:train_main",
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


def load(model: str = "scene15", threads: int | None = None, precision: "Precision" = "float") -> "Engine":
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
    """
    from cascade.inference.loading import load_engine

    return load_engine(model, threads, precision)


class _Commands(click.Group):
    """A group that imports a command's package only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        return getattr(import_module(module), name)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
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


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="canonistia")
def main() -> None:
    """Train, export and serve a two-stage picture classifier that knows when it is unsure."""


if __name__ == "__main__":
    main()
