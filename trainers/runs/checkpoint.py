"""The state of an unfinished training: everything that the next step depends on, in one file."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from cascade.errors import CanonistiaError
from cascade.files import write_bytes
from trainers.runs.folder import STATE


@dataclass
class TrainingState:
    """Where a training stands: ``epoch`` and ``step`` are the next ones to take, counted from 1 and from 0.

    ``history`` holds the metrics of the finished epochs, ``losses`` those of the steps of the unfinished one,
    ``parts`` the state of network, averaged network, optimizer, schedule and gradient scaler, ``random`` that of
    PyTorch's generators.
    """

    epoch: int = 1
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)
    random: list[torch.Tensor] = field(default_factory=list)


def random_state() -> list[torch.Tensor]:
    """Return the state of PyTorch's generators: the CPU's, and every GPU's."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *gpus]


def set_random_state(states: list[torch.Tensor]) -> None:
    """Set the generators as :func:`random_state` found them."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


def save_state(folder: Path, state: TrainingState) -> None:
    """Write the state into a run's folder, replacing an earlier one at once.

    Raises
    ------
    CanonistiaError
        The disk is full or the file cannot be written; the earlier state is still there then.
    """
    content = io.BytesIO()
    torch.save(vars(state), content)
    write_bytes(folder / STATE, content.getbuffer())


def load_state(folder: Path) -> TrainingState | None:
    """Return the state in a run's folder; None when the run ended before its first one, or is finished.

    Raises
    ------
    CanonistiaError
        The file is damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        return TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
    except (UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, TypeError, OSError) as error:
        raise CanonistiaError(
            f"{path} cannot be read ({type(error).__name__}); start the run again with --overwrite"
        ) from error


def check_same_config(folder: Path, there: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise CanonistiaError unless a run that is resumed has the very settings it was started with."""
    if there.get("classes") != given["classes"]:
        raise CanonistiaError(
            f"{folder} was trained on the classes {', '.join(there.get('classes') or ['(none)'])}; the data has "
            f"{', '.join(given['classes'])}: a class that comes or goes needs a new run"
        )
    # Where a run is recorded and how many processes decode does not change what comes out of it.
    free = {"tracker", "workers", "code_version", "cache"}
    changed = sorted(name for name in {*there, *given} - free if there.get(name) != given.get(name))
    if changed:
        raise CanonistiaError(
            f"{folder} was started with other settings ("
            + ", ".join(f"{name} {there.get(name)!r}, now {given.get(name)!r}" for name in changed)
            + "); resume it with the same ones, or start another --out"
        )
