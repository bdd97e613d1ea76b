"""The training loop: epochs of steps, scores on validation, and a state that survives the process."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from cascade.errors import CanonistiaError
from cascade.progress import steps_shown
from trainers.data.loader import Batch
from trainers.data.sampling import in_order, shuffled
from trainers.distributed.process_context import ProcessContext
from trainers.loop.interrupt import Interruption, interruptions
from trainers.loop.losses import Loss
from trainers.loop.step import Stepper, check_finite
from trainers.loop.teachers import Teachers
from trainers.recipe import Recipe
from trainers.runs.checkpoint import TrainingState, load_state, random_state, save_state, set_random_state

_SAVE_SECONDS = 600  # between saved states in a long epoch


class Batches(Protocol):
    """The batches of each epoch, which depend on its number alone and can start at any step."""

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, beginning with step ``start``."""


@dataclass(frozen=True)
class Task:
    """What is learnt: the loss of logits and targets, the scores of an epoch, and the score of the best checkpoint."""

    loss: Loss
    scores: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    best_by: str


@dataclass(frozen=True)
class TrainingSetup:
    """All that a training needs besides its network and data; the state of the training is kept in ``folder``.

    ``teachers`` are on the process's device.
    """

    recipe: Recipe
    task: Task
    process: ProcessContext
    folder: Path
    teachers: Teachers | None = None


class TensorBatches:
    """Batches of tensors in memory, in another order each epoch when a seed is given."""

    def __init__(
        self,
        inputs: torch.Tensor,
        targets: np.ndarray,
        batch_size: int,
        weights: np.ndarray | None = None,
        seed: int | None = None,
    ) -> None:
        self.inputs = inputs
        self.targets = torch.from_numpy(targets)
        self.weights = torch.ones(len(targets)) if weights is None else torch.from_numpy(weights).float()
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        return len(in_order(len(self.targets), self.batch_size))

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, beginning with step ``start``."""
        count = len(self.targets)
        if self.seed is None:
            batches = in_order(count, self.batch_size)
        else:
            batches = shuffled(count, self.batch_size, self.seed, number)
        for indices in map(torch.from_numpy, batches[start:]):
            yield self.inputs[indices], self.targets[indices], self.weights[indices]


class EpochSchedule:
    """Batches of another kind in each epoch, all of the same number; ``epochs`` holds one entry per epoch."""

    def __init__(self, epochs: Sequence[Batches]) -> None:
        self.epochs = epochs

    def __len__(self) -> int:
        return len(self.epochs[0])

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, beginning with step ``start``; later epochs are as the last entry."""
        return self.epochs[min(number, len(self.epochs)) - 1].epoch(number, start)


@dataclass(frozen=True)
class Hooks:
    """What a training calls: ``begin`` before each epoch, to set what is trained, and ``end`` after it.

    ``begin`` gets the number of the epoch, ``end`` the epoch's row of metrics and the network to use.
    """

    begin: Callable[[int], object]
    end: Callable[[dict[str, float], nn.Module], None]


def fit(
    network: nn.Module,
    groups: list[dict[str, Any]],
    training: Batches,
    validation: Batches,
    setup: TrainingSetup,
    hooks: Hooks,
) -> tuple[nn.Module, np.ndarray]:
    """Train a network in place; return the network to use and its validation logits, (N, K) or (N, 1).

    The state is saved after every epoch, and a training that finds one in its folder continues from it, with the same
    result. ``groups`` are the optimizer's parameter groups, each with its ``lr``.

    Raises
    ------
    CanonistiaError
        The loss is no longer finite, the memory or the disk is full, or the process was asked to end; the last state
        is kept.
    """
    recipe, task, process, folder = setup.recipe, setup.task, setup.process, setup.folder
    steps = recipe.epochs * len(training)
    stepper = Stepper(network, groups, recipe, task.loss, process, steps, setup.teachers)
    state = load_state(folder)
    if state:
        stepper.restore(state.parts)
    else:
        state = TrainingState(random=random_state())
    logits = None
    with interruptions() as interruption:
        while state.epoch <= recipe.epochs and not _is_stale(state.history, task, recipe.patience):
            hooks.begin(state.epoch)
            stepper.share()
            set_random_state(state.random)
            _train_epoch(stepper, training, state, interruption, folder)
            logits, targets = predict(stepper.result, validation, process)
            check_finite(torch.from_numpy(logits), state.epoch)
            row = _metrics(state, stepper, training, task.scores(logits, targets))
            hooks.end(row, stepper.result)
            state = TrainingState(epoch=state.epoch + 1, history=[*state.history, row])
            _save(stepper, state, folder)
    if logits is None:  # the last epoch was done before the process ended
        logits, _ = predict(stepper.result, validation, process)
    return stepper.result, logits


def predict(network: nn.Module, batches: Batches, process: ProcessContext) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits (N, K) in full precision and the targets (N,), of every process's batches in their order."""
    network.eval()
    with torch.inference_mode():
        pairs = [(network(inputs.to(process.device)).cpu(), targets) for inputs, targets, _ in batches.epoch(0)]
    parts = process.gathered((torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])))
    return torch.cat([x for x, _ in parts]).numpy(), torch.cat([y for _, y in parts]).numpy()


def _train_epoch(
    stepper: Stepper, training: Batches, state: TrainingState, interruption: Interruption, folder: Path
) -> None:
    started = saved = time.perf_counter()
    before = state.seconds
    batches = training.epoch(state.epoch, state.step)
    what = f"epoch {state.epoch} of {stepper.recipe.epochs}"
    # Batches in memory take so little time that a progress bar would flicker.
    shown = batches if isinstance(training, TensorBatches) else steps_shown(batches, what, state.step, len(training))
    for batch in shown:
        state.losses.append(stepper.step(batch, state.epoch))
        state.step += 1
        now = time.perf_counter()
        state.seconds = before + now - started
        names = [name for name in stepper.process.gathered(interruption.name) if name]
        if names or now - saved > _SAVE_SECONDS:
            _save(stepper, state, folder)
            saved = now
        if names:
            raise CanonistiaError(
                f"ended by {names[0]} in epoch {state.epoch}, step {state.step} of {len(training)}; everything is "
                "saved: continue with the same command and --resume"
            )


def _save(stepper: Stepper, state: TrainingState, folder: Path) -> None:
    state.parts, state.random = stepper.state(), random_state()
    if stepper.process.is_main:
        save_state(folder, state)


def _metrics(state: TrainingState, stepper: Stepper, training: Batches, scores: dict[str, float]) -> dict[str, float]:
    mean = float(np.mean(stepper.process.gathered(float(np.mean(state.losses)))))
    pictures = len(training) * stepper.recipe.batch_size
    rates = stepper.schedule.get_last_lr()
    return {
        "epoch": state.epoch,
        "training_loss": mean,
        **{f"validation_{name}": float(value) for name, value in scores.items()},
        "learning_rate": float(rates[-1]),
        "backbone_learning_rate": float(max(rates[:-1], default=0.0)),
        "pictures_per_second": pictures / state.seconds,
        "seconds": state.seconds,
    }


def _is_stale(history: Sequence[dict[str, float]], task: Task, patience: int) -> bool:
    """Return whether the best score is more than ``patience`` epochs old; never with a patience of 0."""
    scores = [row[f"validation_{task.best_by}"] for row in history]
    return patience > 0 and len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])
