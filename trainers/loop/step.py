"""One step of a training: forward, loss, backward, clipping, optimizer, rates, averaged weights."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cascade.errors import CanonistiaError
from trainers.data.loader import Batch
from trainers.distributed.device import resolve_precision
from trainers.distributed.process_context import ProcessContext
from trainers.loop.losses import Loss
from trainers.loop.mixing import mixing
from trainers.loop.teachers import Teachers
from trainers.recipe import Recipe

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]

_MOMENTUM = 0.9  # Nesterov's, of SGD
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Stepper:
    """What changes from step to step; :meth:`state` and :meth:`restore` carry all of it over an interruption.

    Parameters
    ----------
    network
        Returns logits (N, K), or (N, 1) for a binary task.
    groups
        Parameter groups, each with its ``lr``.
    steps
        The number of steps of the whole training, over which the learning rates rise and fall.
    teachers
        Networks on the process's device whose answers the training follows, too.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: list[dict[str, Any]],
        recipe: Recipe,
        loss: Loss,
        process: ProcessContext,
        steps: int,
        teachers: Teachers | None = None,
    ) -> None:
        self.network = network
        self.recipe = recipe
        self.loss = loss
        self.process = process
        self.teachers = teachers
        self.mix = mixing(recipe.mix)
        self.kind = process.device.partition(":")[0]
        self.precision = resolve_precision(recipe.precision, process.device)
        self.scaler = torch.amp.GradScaler(self.kind, enabled=self.precision == "fp16")
        self.optimizer = _optimizer(groups, recipe)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: warmed_cosine(step, steps, recipe.warmup)
        )
        average = _averaging(recipe.ema)
        self.averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True) if recipe.ema else None
        self.shared = network

    @property
    def result(self) -> nn.Module:
        """Return the network to use: the averaged weights, or the network itself without averaging."""
        return self.averaged.module if self.averaged else self.network

    def share(self) -> None:
        """Average gradients over the processes from now on; call it again when other stages are trained."""
        self.shared = self.process.shared(self.network)

    def step(self, batch: Batch, epoch: int) -> float:
        """Take one step and return its mean loss.

        Raises
        ------
        CanonistiaError
            The loss is not finite, or the GPU has too little memory.
        """
        try:
            loss = self._gradients(batch)
        except torch.OutOfMemoryError as error:
            raise CanonistiaError(
                f"{self.process.device} has too little memory for a step of {len(batch[1])} pictures; lower "
                f"--batch-size, or raise --accumulate (now {self.recipe.accumulate}); the last checkpoint is kept"
            ) from error
        if not math.isfinite(loss):
            raise not_finite(epoch)
        self.scaler.unscale_(self.optimizer)
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), max_norm=self.recipe.clip)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else the step was skipped: its gradients overflowed in fp16
            self.schedule.step()
        if self.averaged:
            self.averaged.update_parameters(self.network)
        return loss

    def _gradients(self, batch: Batch) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        count, total = len(batch[1]), 0.0
        parts = list(zip(*(values.chunk(self.recipe.accumulate) for values in batch), strict=True))
        for number, (inputs, targets, weights) in enumerate(parts, start=1):
            mixed = self.mix(inputs)
            seen = mixed.inputs.to(self.process.device, non_blocking=True)
            with contextlib.ExitStack() as around, self.process.common_statistics():
                if number < len(parts) and isinstance(self.shared, nn.parallel.DistributedDataParallel):
                    around.enter_context(self.shared.no_sync())  # gradients are averaged once per step
                with torch.autocast(self.kind, _AUTOCAST.get(self.precision), enabled=self.precision in _AUTOCAST):
                    taught = self.teachers.probabilities(seen) if self.teachers else None
                    logits = self.shared(seen)
                device = self.process.device
                mean = mixed.loss(self.loss, logits.float(), targets.to(device), weights.to(device))
                if self.teachers and taught is not None:
                    mean = self.teachers.loss(mean, logits.float(), taught)
                loss = mean * (len(targets) / count)
                self.scaler.scale(loss).backward()
            total += loss.item()
        return total

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on, except the batches and the random state."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        always = {
            "network": self.network,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
        }
        return {**always, "averaged": self.averaged} if self.averaged else always


def check_finite(values: torch.Tensor, epoch: int) -> None:
    """Raise CanonistiaError unless all values are finite numbers."""
    if not torch.isfinite(values).all():
        raise not_finite(epoch)


def not_finite(epoch: int) -> CanonistiaError:
    """Return the error of a training that has diverged."""
    return CanonistiaError(
        f"the network's output is not finite in epoch {epoch}; lower --lr or --backbone-lr "
        "(the checkpoints of earlier epochs are kept)"
    )


def warmed_cosine(step: int, steps: int, warmup: float) -> float:
    """Return the factor on the learning rates: linear warm-up, then half a cosine to zero (arXiv 1608.03983)."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _averaging(decay: float) -> Callable[[Tensors, Tensors, Any], None]:
    average = get_ema_multi_avg_fn(decay)

    def update(averaged: Tensors, current: Tensors, number: Any) -> None:
        if averaged[0].is_floating_point():
            average(averaged, current, number)
        else:  # counters and position tables are not averaged
            for kept, new in zip(averaged, current, strict=True):
                kept.copy_(new)

    return update


def _optimizer(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=_MOMENTUM, nesterov=True, weight_decay=recipe.weight_decay, fused=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    raise CanonistiaError(f"unknown optimizer '{recipe.optimizer}'; expected adamw or sgd")
