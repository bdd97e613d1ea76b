"""Losses against their definitions."""

from itertools import combinations

import pytest
import torch

from cascade.errors import CanonistiaError
from trainers.loop.losses import multiclass_loss, smooth_top2


def brute_force_top2(scores: torch.Tensor, target: int, temperature: float) -> torch.Tensor:
    """Return equation 8 of arXiv 1802.07595 for one picture, pair by pair."""
    pairs = list(combinations(range(len(scores)), 2))
    means = torch.stack([(scores[i] + scores[j]) / 2 for i, j in pairs])
    margins = torch.tensor([0.0 if target in pair else 1.0 for pair in pairs])
    holding = torch.tensor([target in pair for pair in pairs])
    everything = temperature * ((means + margins) / temperature).logsumexp(0)
    return everything - temperature * (means[holding] / temperature).logsumexp(0)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("classes", [3, 5, 15])
def test_top2_is_the_smooth_top_k_loss_with_k_2(temperature: float, classes: int) -> None:
    torch.manual_seed(classes)
    logits = 3 * torch.randn(8, classes, dtype=torch.float64)
    targets = torch.randint(0, classes, (8,))
    loss = smooth_top2(logits, targets, temperature)
    expected = [brute_force_top2(row, int(target), temperature) for row, target in zip(logits, targets, strict=True)]
    assert torch.allclose(loss, torch.stack(expected))


def test_top2_has_the_right_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: smooth_top2(x, torch.tensor([0, 1, 2, 5])), (logits,))


def test_top2_forgives_second_place() -> None:
    targets = torch.tensor([0])
    first, second, third = (
        smooth_top2(torch.tensor([scores]), targets, temperature=0.1).item()
        for scores in ([9.0, 5.0, 0.0, 0.0], [5.0, 9.0, 0.0, 0.0], [0.0, 9.0, 5.0, 0.0])
    )
    assert first == pytest.approx(second, abs=1e-3)
    assert third > 1


def test_top2_with_two_classes_and_large_logits_stays_finite() -> None:
    logits = torch.tensor([[200.0, -200.0], [-1000.0, 1000.0]], requires_grad=True)
    loss = smooth_top2(logits, torch.tensor([1, 0]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("name", "smoothing", "classes", "message"),
    [
        ("hinge", 0.0, 5, "unknown loss 'hinge'; expected one of cross_entropy, top2"),
        ("top2", 0.1, 5, "takes no label smoothing"),
        ("top2", 0.0, 2, "nothing to learn"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(name: str, smoothing: float, classes: int, message: str) -> None:
    with pytest.raises(CanonistiaError, match=message):
        multiclass_loss(name, smoothing, classes)
