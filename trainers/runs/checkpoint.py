"""The state of an unfinished training: all that the next step depends on, in one file."""

import io
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
    """The progress of a training: ``epoch`` and ``step`` are the next ones, counted from 1 and from 0.

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
    """Write the state into a run's folder, replacing an earlier one atomically.

    Raises
    ------
    CanonistiaError
        The disk is full or the file cannot be written; the earlier state is kept.
    """
    content = io.BytesIO()
    torch.save(vars(state), content)
    write_bytes(folder / STATE, content.getbuffer())


def load_state(folder: Path) -> TrainingState | None:
    """Return the state in a run's folder; None before the first one and when the run is finished.

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
