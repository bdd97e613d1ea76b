"""Knowledge distillation: finished networks whose answers a training follows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Teacher:
    """A finished network, in evaluation mode, and the image size in pixels that it was trained for."""

    network: nn.Module
    size: int

    def to(self, device: str) -> "Teacher":
        """Return the teacher on a device."""
        return Teacher(self.network.to(device).to(memory_format=torch.channels_last), self.size)


@dataclass(frozen=True)
class Teachers:
    """Networks of the same classes, which see what the student sees: each picture as it was augmented and mixed.

    A student that is taught on exactly its own view of a picture keeps learning for longer (Beyer et al., arXiv
    2106.05237).

    Parameters
    ----------
    weight
        The share of the loss that follows the teachers, in [0, 1]; the rest follows the labels.
    """

    teachers: Sequence[Teacher]
    weight: float

    @torch.no_grad()
    def probabilities(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the mean of the teachers' probabilities (N, K) of pixels (N, H, W, 3)."""
        answers = [teacher.network(resized(inputs, teacher.size)).float().softmax(dim=1) for teacher in self.teachers]
        return torch.stack(answers).mean(dim=0)

    def loss(self, labelled: torch.Tensor, logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch: its mean loss by labels, and how far logits (N, K) are from what is taught.

        The second part is the Kullback-Leibler divergence from the probabilities ``taught`` (N, K), at a temperature
        of 1 (Hinton et al., arXiv 1503.02531).
        """
        apart = functional.kl_div(logits.log_softmax(dim=1), taught, reduction="batchmean")
        return (1 - self.weight) * labelled + self.weight * apart


def resized(inputs: torch.Tensor, size: int) -> torch.Tensor:
    """Return pixels (N, H, W, 3) at an image size, (N, size, size, 3) float unless they have it already."""
    if inputs.shape[1] == inputs.shape[2] == size:
        return inputs
    planes = inputs.permute(0, 3, 1, 2).float()
    scaled = functional.interpolate(planes, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return scaled.permute(0, 2, 3, 1)
