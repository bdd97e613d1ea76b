"""The training loop: epochs of steps, averaged weights, scores on validation."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cascade.errors import CanonistiaError
from trainers.device import resolve_precision
from trainers.losses import Loss
from trainers.mixing import mixing
from trainers.progress import track
from trainers.recipe import Recipe

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # inputs (N, ...), targets (N,), weights (N,)


class Batches(Protocol):
    """Batches that can be gone through once an epoch, and their number."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Task:
    """What is learnt: the loss of logits and targets, the scores of an epoch, and the score that names the best."""

    loss: Loss
    scores: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    best_by: str


class TensorBatches:
    """Batches of tensors in memory, shuffled anew each epoch when a seed is given."""

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
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return math.ceil(len(self.targets) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        count = len(self.targets)
        order = torch.arange(count) if self._generator is None else torch.randperm(count, generator=self._generator)
        for rows in order.split(self.batch_size):
            yield self.inputs[rows], self.targets[rows], self.weights[rows]


class EpochSchedule:
    """Batches of another kind in each epoch, all kinds of the same length; ``epochs`` holds one entry an epoch."""

    def __init__(self, epochs: Sequence[Batches]) -> None:
        self._left = list(epochs)

    def __len__(self) -> int:
        return len(self._left[0])

    def __iter__(self) -> Iterator[Batch]:
        current = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        return iter(current)


def fit(
    network: nn.Module,
    groups: list[dict[str, Any]],
    training: Batches,
    validation: Batches,
    recipe: Recipe,
    task: Task,
    device: str,
    train_mode: Callable[[], object],
    on_epoch: Callable[[dict[str, float], nn.Module], None],
) -> nn.Module:
    """Train a network in place and return the network to use: the averaged weights, or itself without averaging.

    Parameters
    ----------
    network
        Gives logits (N, K), or (N, 1) for a binary task.
    groups
        AdamW parameter groups, each with its ``lr``.
    train_mode
        Puts the network in training mode, called at the start of every epoch.
    on_epoch
        Called after each epoch with its row of metrics and the network to use.

    Raises
    ------
    CanonistiaError
        The loss is no longer a finite number.
    """
    bf16 = resolve_precision(recipe.precision, device) == "bf16"
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * len(training)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, recipe.warmup))
    mix = mixing(recipe.mix)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
    result = averaged.module if recipe.ema else network

    for epoch in range(1, recipe.epochs + 1):
        started = time.perf_counter()
        train_mode()
        losses: list[float] = []
        seen = 0
        for inputs, targets, weights in _shown(training, f"epoch {epoch} of {recipe.epochs}"):
            mixed = mix(inputs)
            with torch.autocast(device.split(":", maxsplit=1)[0], torch.bfloat16, enabled=bf16):
                logits = network(mixed.inputs.to(device))
            loss = mixed.loss(task.loss, logits.float(), targets.to(device), weights.to(device))
            losses.append(loss.item())
            _check_finite(loss.detach(), epoch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), max_norm=5.0)
            optimizer.step()
            schedule.step()
            if recipe.ema:
                averaged.update_parameters(network)
            seen += len(targets)
        seconds = time.perf_counter() - started
        logits, truth = predict(result, validation, device)
        _check_finite(torch.from_numpy(logits), epoch)
        scores = {f"validation_{name}": value for name, value in task.scores(logits, truth).items()}
        on_epoch(
            {
                "epoch": epoch,
                "training_loss": float(np.mean(losses)),
                **scores,
                "learning_rate": float(schedule.get_last_lr()[-1]),
                "pictures_per_second": seen / seconds,
                "seconds": seconds,
            },
            result,
        )
    return result


def predict(network: nn.Module, batches: Iterable[Batch], device: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits (N, K) in full precision and the targets (N,)."""
    network.eval()
    with torch.inference_mode():
        pairs = [(network(inputs.to(device)).cpu(), targets) for inputs, targets, _ in batches]
    return torch.cat([logits for logits, _ in pairs]).numpy(), torch.cat([targets for _, targets in pairs]).numpy()


def _check_finite(values: torch.Tensor, epoch: int) -> None:
    if not torch.isfinite(values).all():
        raise CanonistiaError(
            f"the network gave numbers that are not finite in epoch {epoch}; lower --lr or --backbone-lr "
            "(the checkpoints of the epochs before are kept)"
        )


def _rate(step: int, steps: int, warmup: float) -> float:
    """Return the factor on the learning rates: linear warm-up, then half a cosine to zero (arXiv 1608.03983)."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + np.cos(np.pi * (step - rising) / max(1, steps - rising)))


def _shown(batches: Batches, what: str) -> Iterable[Batch]:
    # Batches in memory fly past: a bar for them would only flicker.
    return batches if isinstance(batches, TensorBatches) else track(batches, what)
