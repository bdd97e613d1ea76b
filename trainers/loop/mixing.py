"""Mixing: two pictures of a batch are combined into one, with both targets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cascade.errors import CanonistiaError
from trainers.loop.losses import Loss
from trainers.recipe import MIXES

MIXUP_ALPHA = 0.2  # of the symmetric beta distribution of a blend's share
CUTMIX_ALPHA = 1.0


@dataclass(frozen=True)
class Mixed:
    """A batch of pictures (N, H, W, 3), each with ``share`` of its own content and the rest of its partner's."""

    inputs: torch.Tensor
    partners: torch.Tensor  # (N,) indices into the batch
    share: float

    def loss(self, loss: Loss, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the mean weighted loss of logits (N, K), each picture's two targets counting by their shares."""
        own = (loss(logits, targets) * weights).mean()
        if self.share == 1:
            return own
        partners = self.partners.to(targets.device)
        other = (loss(logits, targets[partners]) * weights[partners]).mean()
        return self.share * own + (1 - self.share) * other


Mix = Callable[[torch.Tensor], Mixed]


def mixing(name: str) -> Mix:
    """Return a way of mixing by name: ``mixup`` (arXiv 1710.09412), ``cutmix`` (1905.04899), ``both`` at random.

    Raises
    ------
    CanonistiaError
        The name is unknown.
    """
    ways: dict[str, Mix] = {
        "none": lambda inputs: Mixed(inputs, torch.arange(len(inputs)), 1.0),
        "mixup": mixup,
        "cutmix": cutmix,
        "both": lambda inputs: mixup(inputs) if torch.rand(()) < 0.5 else cutmix(inputs),
    }
    if name not in ways:
        raise CanonistiaError(f"unknown mix '{name}'; expected one of {', '.join(MIXES)}")
    return ways[name]


def mixup(inputs: torch.Tensor) -> Mixed:
    """Blend every picture with another: one share per batch, drawn from Beta(0.2, 0.2), at least one half its own."""
    share = _share(MIXUP_ALPHA)
    share = max(share, 1 - share)
    partners = torch.randperm(len(inputs))
    wide = inputs.float()
    return Mixed(share * wide + (1 - share) * wide[partners], partners, share)


def cutmix(inputs: torch.Tensor) -> Mixed:
    """Paste a box of another picture into every picture; the share left is uniform, unless a box crosses the edge."""
    height, width = inputs.shape[1:3]
    fraction = (1 - _share(CUTMIX_ALPHA)) ** 0.5  # of height and width that the box has
    row, column = (int(torch.randint(length, ())) for length in (height, width))
    top, bottom = _within(row, fraction * height / 2, height)
    left, right = _within(column, fraction * width / 2, width)
    partners = torch.randperm(len(inputs))
    mixed = inputs.clone()
    mixed[:, top:bottom, left:right] = inputs[partners, top:bottom, left:right]
    return Mixed(mixed, partners, 1 - (bottom - top) * (right - left) / (height * width))


def _share(alpha: float) -> float:
    return float(torch.distributions.Beta(alpha, alpha).sample())


def _within(centre: int, half: float, length: int) -> tuple[int, int]:
    return max(0, round(centre - half)), min(length, round(centre + half))
