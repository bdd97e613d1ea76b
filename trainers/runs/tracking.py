"""Tracking: the record of a run at Weights & Biases."""

import netrc
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click

from cascade.errors import CanonistiaError
from cascade.files import write_text
from trainers.data.thumbnails import thumbnail
from trainers.runs.evaluated import Evaluated

# Seconds that a run waits for the W&B service.
_PATIENCE = 20


class UnreachableError(CanonistiaError):
    """The W&B service does not answer."""


@dataclass(frozen=True)
class Artifact:
    """A version of something that runs make or use: artifacts with equal name, files and facts are one version.

    ``files`` are files and folders on disk, by their name in the artifact.
    """

    name: str
    kind: str
    files: Mapping[str, Path]
    facts: Mapping[str, Any]


class Tracker(Protocol):
    """The record of a run, as a training writes it."""

    def log(self, metrics: Mapping[str, float]) -> None:
        """Record one epoch."""

    def evaluation(self, evaluated: Evaluated, curves: Path, worst: int) -> None:
        """Record confusion, precision and recall per class, the ``worst`` worst mistakes, and the plot of curves."""

    def uses(self, files: Artifact) -> None:
        """Record what the run was made from."""

    def makes(self, files: Artifact) -> None:
        """Record what the run made."""

    def finish(self, summary: Mapping[str, float], failed: bool = False) -> str:
        """Close the record; return one line for the user, or an empty text."""


def data_artifact(fingerprint: str, classes: Sequence[str]) -> Artifact:
    """Return a data set as an artifact: its fingerprint, not its pictures."""
    return Artifact(f"data-{fingerprint[:12]}", "data-set", {}, {"fingerprint": fingerprint, "classes": list(classes)})


def checkpoint_artifact(run: Path, group: str) -> Artifact:
    """Return a finished run's checkpoints as an artifact."""
    names = [f"{name}.{ending}" for name in ("last", "best") for ending in ("safetensors", "json")]
    return Artifact(_safe(f"{group}-{run.name}"), "model", {name: run / name for name in names}, {"run": run.name})


def bundle_artifact(bundle: Path) -> Artifact:
    """Return a bundle as an artifact."""
    return Artifact(_safe(f"bundle-{bundle.name}"), "bundle", {bundle.name: bundle}, {})


class NoTracker:
    """Keeps nothing: the run folder is the only record."""

    def log(self, metrics: Mapping[str, float]) -> None:
        """Ignore."""

    def evaluation(self, evaluated: Evaluated, curves: Path, worst: int) -> None:
        """Ignore."""

    def uses(self, files: Artifact) -> None:
        """Ignore."""

    def makes(self, files: Artifact) -> None:
        """Ignore."""

    def finish(self, summary: Mapping[str, float], failed: bool = False) -> str:
        """Return an empty text."""
        return ""


class WandbTracker:
    """One Weights & Biases run, online or as a file in the run folder."""

    def __init__(self, mode: str, folder: Path, name: str, group: str, job: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._wandb = wandb
        self._offline = mode == "offline"
        # A resumed run finds its id in its folder, and continues the same run of W&B.
        kept = folder / "wandb_id.txt"
        known = kept.read_text(encoding="utf-8") if kept.exists() else None
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
                id=known,
                resume="allow" if known else None,
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

        write_text(kept, self._run.id)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Record one epoch."""
        self._run.log(dict(metrics))

    def evaluation(self, evaluated: Evaluated, curves: Path, worst: int) -> None:
        """Record three tables and a plot: ``confusion``, ``by_class``, ``mistakes``, ``curves``."""
        table, image = self._wandb.Table, self._wandb.Image
        matrix, classes = evaluated.confusion(), evaluated.classes
        cells = [
            [true, predicted, int(matrix[row, column])]
            for row, true in enumerate(classes)
            for column, predicted in enumerate(classes)
        ]
        figures = [[item.label, item.precision, item.recall, item.pictures] for item in evaluated.by_class()]
        mistakes = [
            [image(thumbnail(item.path)), item.path.name, item.label, item.predicted, item.probability]
            for item in evaluated.mistakes(worst)
        ]
        self._run.log(
            {
                "confusion": table(["true", "predicted", "pictures"], cells),
                "by_class": table(["class", "precision", "recall", "pictures"], figures),
                "mistakes": table(["picture", "file", "true", "predicted", "probability"], mistakes),
                "curves": image(str(curves)),
            }
        )

    def uses(self, files: Artifact) -> None:
        """Record an artifact as an input of this run."""
        artifact = self._artifact(files)
        if self._offline:
            # use_artifact needs the service; this writes the same entry to the file, which "wandb sync" sends.
            self._run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        else:
            self._run.use_artifact(artifact)

    def makes(self, files: Artifact) -> None:
        """Record an artifact as an output of this run."""
        self._run.log_artifact(self._artifact(files))

    def _artifact(self, files: Artifact) -> Any:
        artifact = self._wandb.Artifact(files.name, files.kind, metadata=dict(files.facts))
        for name, path in files.files.items():
            if path.is_dir():
                artifact.add_dir(str(path), name)
            else:
                artifact.add_file(str(path), name)
        return artifact

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


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
