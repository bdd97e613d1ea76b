"""Tracking: the record of a run at Weights & Biases."""

import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np

from cascade.errors import CanonistiaError

# How long a run waits for the W&B service before it gives up, in seconds.
_PATIENCE = 20


class UnreachableError(CanonistiaError):
    """The W&B service does not answer."""


class Tracker(Protocol):
    """What the loop tells the record of a run."""

    def log(self, metrics: Mapping[str, float]) -> None:
        """Record one epoch."""

    def confusion(self, matrix: np.ndarray, classes: Sequence[str]) -> None:
        """Record counts (K, K), true classes in rows."""

    def finish(self, summary: Mapping[str, float], failed: bool = False) -> str:
        """Close the record; return one line for the user, empty when there is nothing to say."""


class NoTracker:
    """Keeps nothing: the run folder is the only record."""

    def log(self, metrics: Mapping[str, float]) -> None:
        """Ignore."""

    def confusion(self, matrix: np.ndarray, classes: Sequence[str]) -> None:
        """Ignore."""

    def finish(self, summary: Mapping[str, float], failed: bool = False) -> str:
        """Say nothing."""
        return ""


class WandbTracker:
    """One Weights & Biases run, online or as a file in the run folder."""

    def __init__(self, mode: str, folder: Path, name: str, group: str, job: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._wandb = wandb
        self._offline = mode == "offline"
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, init_timeout=_PATIENCE)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "canonistia"),
                dir=str(folder),
                name=name,
                group=group,
                job_type=job,
                config=dict(config),
                mode="offline" if self._offline else "online",
                settings=settings,
            )
        except wandb.errors.AuthenticationError as error:
            raise CanonistiaError(
                f"Weights & Biases refused the key: {error}; check WANDB_API_KEY, or use --tracker offline or none"
            ) from error
        except wandb.errors.CommError as error:
            raise UnreachableError(
                f"Weights & Biases cannot be reached: {error}; check the network, or use --tracker offline or none"
            ) from error
        except (wandb.errors.Error, OSError) as error:
            raise CanonistiaError(
                f"Weights & Biases refused the run: {error}; check WANDB_API_KEY, or use --tracker offline or none"
            ) from error

    def log(self, metrics: Mapping[str, float]) -> None:
        """Record one epoch."""
        self._run.log(dict(metrics))

    def confusion(self, matrix: np.ndarray, classes: Sequence[str]) -> None:
        """Record the matrix as a table of true class, predicted class and count."""
        rows = [
            [true, predicted, int(matrix[row, column])]
            for row, true in enumerate(classes)
            for column, predicted in enumerate(classes)
        ]
        self._run.log({"confusion": self._wandb.Table(["true", "predicted", "pictures"], rows)})

    def finish(self, summary: Mapping[str, float], failed: bool = False) -> str:
        """Close the run."""
        self._run.summary.update(dict(summary))
        folder = self._run.dir
        self._run.finish(exit_code=1 if failed else 0)
        return f"offline W&B run; send it with: wandb sync {Path(folder).parent}" if self._offline else ""


def start_tracker(mode: str, folder: Path, name: str, group: str, job: str, config: Mapping[str, Any]) -> Tracker:
    """Return the record of a run; ``auto`` is online with an account and a network, and offline without.

    Raises
    ------
    CanonistiaError
        The key is refused, or ``online`` was asked for and the service cannot be reached.
    """
    if mode == "none":
        return NoTracker()
    if mode == "auto" and _has_account():
        try:
            return WandbTracker("online", folder, name, group, job, config)
        except UnreachableError as error:
            click.echo(f"{error}\nRecording this run offline.", err=True)
    return WandbTracker("online" if mode == "online" else "offline", folder, name, group, job, config)


def _has_account() -> bool:
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"] == "online"
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(path).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
