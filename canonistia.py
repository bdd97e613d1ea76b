"""canonistia, the front door: the command line, and ``canonistia.load(...).classify(...)`` from Python."""

from importlib import import_module
from typing import TYPE_CHECKING

import click

from cascade.errors import CanonistiaError

if TYPE_CHECKING:
    from cascade.bundle.precision import Precision
    from cascade.inference.engine import Engine

__all__ = ["CanonistiaError", "load"]

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
# What a serving install leaves out on purpose.
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
        How many threads an inference may use; by default all processors that this process may run on.
    precision
        ``float``, ``int8``, or ``auto``: 8-bit integers where the bundle has them and they are faster here.

    Raises
    ------
    CanonistiaError
        There is no such bundle, it is damaged, or it has no 8-bit form and that is asked for.
    """
    from cascade.inference.loading import load_engine

    return load_engine(model, threads, precision)


class _Commands(click.Group):
    """A group that imports a command's package when that command is called."""

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
                f"install canonistia with its {extra} extra: pip install '.[{extra}]' in its source folder"
            ) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="canonistia")
def main() -> None:
    """Train, export and serve a two-stage picture classifier that knows when it is unsure."""


if __name__ == "__main__":
    main()
