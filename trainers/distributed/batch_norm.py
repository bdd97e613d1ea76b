"""Batch norm over the batch of all processes, on any device and in any library's layers."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class SharedStatistics(TorchFunctionMode):
    """Within it every batch norm in training mode takes mean and variance over the pictures of all processes.

    The function call is replaced, not the modules: libraries wrap it in layers that a conversion of modules misses.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace ``torch.nn.functional.batch_norm`` in training, and nothing else."""
        kwargs = kwargs or {}
        if func is functional.batch_norm and _argument("training", 5, False, args, kwargs):
            given = (_argument(name, position, default, args, kwargs) for position, name, default in _ARGUMENTS)
            return _shared_batch_norm(*given)
        return func(*args, **kwargs)


# Of torch.nn.functional.batch_norm: position, name and default.
_ARGUMENTS = (
    (0, "input", None),
    (1, "running_mean", None),
    (2, "running_var", None),
    (3, "weight", None),
    (4, "bias", None),
    (6, "momentum", 0.1),
    (7, "eps", 1e-5),
)


def _argument(name: str, position: int, default: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


class _Summed(torch.autograd.Function):
    """The sum of a tensor over the processes; its gradient is summed, too."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total


def _shared_batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """Return x (N, C, ...) normalised per channel; the variance is taken about the common mean, for precision."""
    over = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    wide = x.float()
    own = torch.full((1,), x.numel() / x.shape[1], device=x.device)
    sums = _Summed.apply(torch.cat([wide.sum(over), own]))  # (C + 1,)
    count = sums[-1].detach()
    mean = sums[:-1] / count  # (C,)
    centred = wide - mean.view(shape)
    var = _Summed.apply(centred.square().sum(over)) / count  # (C,)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
    normal = centred * torch.rsqrt(var + eps).view(shape)
    if weight is not None:
        normal = normal * weight.view(shape)
    if bias is not None:
        normal = normal + bias.view(shape)
    return normal.to(x.dtype)
