"""Tracking: the record of a run at Weights & Biases."""

import netrc
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import click
from platformdirs import user_config_dir

from cascade.errors import CanonistiaError
from cascade.files import write_text
from trainers.data.thumbnails import thumbnail
from trainers.runs.evaluated import Evaluated

_PATIENCE = 20  # seconds that a run waits for the service
_UPLOAD_PATIENCE = 600  # seconds that a finished run may take to upload
_MODES = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "none",
}


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
    """One Weights & Biases run, online or as a file in the run folder.

    W&B keeps its data inside the run, too, so that a copy of the folder can be sent from another machine. A failure
    after the start is told once, and never costs the training.
    """

    def __init__(self, mode: str, folder: Path, name: str, group: str, job: str, config: Mapping[str, Any]) -> None:
        import wandb

        self._wandb = wandb
        self._offline = mode == "offline"
        self._failed = False
        self._places = ExitStack()
        # A resumed run finds its id in its folder, and continues the same run of W&B.
        kept = folder / "wandb_id.txt"
        known = kept.read_text(encoding="utf-8") if kept.exists() else None
        # One setting of the user's cannot name several runs: those of the submodels are told apart by their class.
        apart = f"-{_safe(name)}" if job == "train-sub" else ""
        try:
            _check_folder()
            self._places.enter_context(_places_in(folder))
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "canonistia",
                dir=None if os.environ.get("WANDB_DIR") else str(folder),
                name=os.environ["WANDB_NAME"] + apart if os.environ.get("WANDB_NAME") else name,
                group=os.environ.get("WANDB_RUN_GROUP") or group,
                job_type=os.environ.get("WANDB_JOB_TYPE") or job,
                config=dict(config),
                mode="offline" if self._offline else "online",
                id=known or (os.environ["WANDB_RUN_ID"] + apart if os.environ.get("WANDB_RUN_ID") else None),
                resume=None if os.environ.get("WANDB_RESUME") or not known else "allow",
                settings=wandb.Settings(**_own_settings()),
            )
        except wandb.errors.AuthenticationError as error:
            self._places.close()
            raise CanonistiaError(
                f"Weights & Biases refused the key: {_line(error)}; check WANDB_API_KEY, or use --tracker offline or "
                "none"
            ) from error
        except wandb.errors.CommError as error:
            self._places.close()
            raise UnreachableError(
                f"Weights & Biases cannot be reached: {_line(error)}; check the network, or use --tracker offline or "
                "none"
            ) from error
        except (wandb.errors.Error, OSError, ValueError) as error:
            self._places.close()
            raise CanonistiaError(
                f"Weights & Biases refused the run: {_line(error)}; check the variables WANDB_…, or use --tracker none"
            ) from error

        write_text(kept, self._run.id)

    def _attempt(self, act: Callable[[], object]) -> None:
        """Call W&B, unless it failed before; tell a failure, and go on without."""
        if self._failed:
            return
        from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

        try:
            act()
        except (
            self._wandb.errors.Error,
            HandleAbandonedError,
            MailboxClosedError,
            OSError,
            RuntimeError,
            ValueError,
        ) as error:
            self._failed = True
            click.echo(f"Weights & Biases failed ({_line(error)}); the work goes on without it", err=True)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Record one epoch."""
        self._attempt(lambda: self._run.log(dict(metrics)))

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

        def act() -> None:
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

        self._attempt(act)

    def uses(self, files: Artifact) -> None:
        """Record an artifact as an input of this run."""

        def act() -> None:
            if self._offline:
                # use_artifact needs the service; this writes the same entry to the file, which "wandb sync" sends.
                self._run._log_artifact(self._artifact(files), is_user_created=True, use_after_commit=True)
            else:
                self._run.use_artifact(self._artifact(files))

        self._attempt(act)

    def makes(self, files: Artifact) -> None:
        """Record an artifact as an output of this run."""
        self._attempt(lambda: self._run.log_artifact(self._artifact(files)))

    def _artifact(self, files: Artifact) -> Any:
        artifact = self._wandb.Artifact(files.name, files.kind, metadata=dict(files.facts))
        for name, path in files.files.items():
            # Finished files do not change: W&B need not keep a second copy of each.
            add = artifact.add_dir if path.is_dir() else artifact.add_file
            add(str(path), name, skip_cache=True, policy="immutable")
        return artifact

    def finish(self, summary: Mapping[str, float], failed: bool = False) -> str:
        """Close the run."""
        folder = Path(self._run.dir).parent
        self._attempt(lambda: self._run.summary.update(dict(summary)))
        # Also after a failure: W&B would give a run that is not closed to the next training of this process.
        before, self._failed = self._failed, False
        self._attempt(lambda: self._run.finish(exit_code=1 if failed else 0))
        self._failed |= before
        self._places.close()
        send = f"send it with: wandb sync {shlex.quote(str(folder))}"
        if self._failed:
            return f"the W&B run is not complete; {send}"
        return f"offline W&B run; {send}" if self._offline else ""


def tracker_mode(mode: str) -> str:
    """Return what is left of a ``--tracker`` when the machine was asked: once by each command, before its work.

    ``auto`` follows ``WANDB_MODE``. Without it, it is ``offline`` where there is no account, or the service does not
    answer, and else stays ``auto``: online, and offline for a run that the service does not take.

    Raises
    ------
    CanonistiaError
        ``WANDB_MODE`` is none of W&B's modes.
    """
    if mode != "auto":
        return mode
    if "WANDB_MODE" in os.environ:
        wanted = os.environ["WANDB_MODE"].strip().lower()
        if wanted not in _MODES:
            raise CanonistiaError(
                f"WANDB_MODE is '{os.environ['WANDB_MODE']}', expected {', '.join(_MODES)}; correct or unset it, or "
                "give --tracker"
            )
        mode = _MODES[wanted]
    elif os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes"):
        return "none"
    if mode == "auto" and not _has_account():
        return "offline"
    if mode == "auto" and not _answers():
        click.echo("Weights & Biases cannot be reached; recording offline, in the run's folder.", err=True)
        return "offline"
    return mode


def start_tracker(mode: str, folder: Path, name: str, group: str, job: str, config: Mapping[str, Any]) -> Tracker:
    """Return the record of a run, of a mode as for :func:`tracker_mode`.

    Raises
    ------
    CanonistiaError
        A setting or the key is refused, or ``online`` was asked for and the service cannot be reached.
    """
    found = tracker_mode(mode)
    if found == "none":
        return NoTracker()
    if found == "auto":
        try:
            return WandbTracker("online", folder, name, group, job, config)
        except UnreachableError as error:
            click.echo(f"{error}\nRecording this run offline.", err=True)
            found = "offline"
    return WandbTracker(found, folder, name, group, job, config)


def _own_settings() -> dict[str, Any]:
    """Return our settings of a W&B run, where the user has set none of their own."""
    ours: dict[str, Any] = {
        "silent": True,
        "console": "off",
        "x_disable_stats": True,
        "init_timeout": _PATIENCE,
        "finish_timeout": _UPLOAD_PATIENCE,
        "finish_timeout_raises": True,
    }
    return {name: value for name, value in ours.items() if f"WANDB_{name.upper()}" not in os.environ}


def _check_folder() -> None:
    """Raise OSError unless the folder that WANDB_DIR names can be written: W&B would take another one silently."""
    named = os.environ.get("WANDB_DIR")
    if named:
        Path(named).mkdir(parents=True, exist_ok=True)
        if not os.access(named, os.W_OK):
            raise PermissionError(f"WANDB_DIR {named} cannot be written")


@contextmanager
def _places_in(folder: Path) -> Iterator[None]:
    """Keep W&B's data, cache and new configuration inside a run, where the user names no places.

    The data are part of an offline run: the pictures in its tables. The others are removed at the end.
    """
    own = folder / "wandb"
    passing = own / "passing"
    wanted = {"WANDB_DATA_DIR": own / "data", "WANDB_CACHE_DIR": passing, "WANDB_ARTIFACT_DIR": passing}
    if not Path(user_config_dir("wandb")).exists():  # else it holds the user's settings
        wanted["WANDB_CONFIG_DIR"] = passing
    ours = {name: str(path) for name, path in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        shutil.rmtree(passing, ignore_errors=True)
        for path in own.rglob("*"):
            if path.is_symlink() and not path.exists():  # to a log that was there
                path.unlink()


def _answers() -> bool:
    """Return whether the service answers at all, through the user's proxy if there is one."""
    try:
        urlopen(Request(_service(), method="HEAD"), timeout=_PATIENCE).close()
    except HTTPError:
        return True
    except (OSError, ValueError, HTTPException):
        return False
    return True


def _service() -> str:
    from wandb import Settings

    return os.environ.get("WANDB_BASE_URL") or Settings().base_url


def _line(error: Exception) -> str:
    """Return an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _has_account() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
        entries = netrc.netrc(path).hosts
        return any(host in entries for host in (urlsplit(_service()).hostname, "api.wandb.ai"))
    except (OSError, RuntimeError, ValueError, netrc.NetrcParseError):
        return False


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
