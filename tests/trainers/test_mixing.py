"""Mixing pictures and their targets."""

import numpy as np
import pytest
import torch

from cascade.errors import CanonistiaError
from trainers.loop.losses import multiclass_loss
from trainers.loop.mixing import Mixed, cutmix, mixing, mixup


def batch() -> torch.Tensor:
    """Return eight pictures, each filled with its number."""
    return torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 24, 20, 3).contiguous()


@pytest.mark.parametrize("seed", range(5))
def test_a_blend_is_the_shares_of_both_pictures(seed: int) -> None:
    torch.manual_seed(seed)
    mixed = mixup(batch())
    assert 0.5 <= mixed.share <= 1
    own, other = torch.arange(8.0), mixed.partners.float()
    expected = mixed.share * own + (1 - mixed.share) * other
    assert torch.allclose(mixed.inputs[:, 5, 5, 0], expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_share_of_a_pasted_box_is_counted_in_pixels(seed: int) -> None:
    torch.manual_seed(seed)
    mixed = cutmix(batch())
    moved = [row for row in range(8) if mixed.partners[row] != row]
    for row in moved:
        kept = (mixed.inputs[row, :, :, 0] == row).float().mean()
        assert kept == pytest.approx(mixed.share)
        assert set(mixed.inputs[row].unique().tolist()) <= {row, int(mixed.partners[row])}


def test_the_loss_weighs_both_targets_by_their_shares() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([0, 1])
    mixed = Mixed(batch()[:2], torch.tensor([1, 0]), 0.7)
    loss = mixed.loss(multiclass_loss("cross_entropy", 0.0, 2), logits, targets, torch.ones(2))
    soft = torch.tensor([[0.7, 0.3], [0.3, 0.7]])
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, soft).item())


def test_none_leaves_pictures_and_loss_alone() -> None:
    mixed = mixing("none")(batch())
    assert torch.equal(mixed.inputs, batch())
    loss = mixed.loss(lambda logits, _: logits[:, 0], torch.ones(8, 2), torch.zeros(8, dtype=torch.long), torch.ones(8))
    assert loss == 1


def test_both_takes_turns() -> None:
    torch.manual_seed(0)
    kinds = {mixing("both")(batch()).inputs.dtype for _ in range(20)}
    assert kinds == {torch.uint8, torch.float32}


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(CanonistiaError, match="unknown mix 'shake'"):
        mixing("shake")


def test_shares_are_spread_as_the_papers_say() -> None:
    torch.manual_seed(0)
    shares = np.array([mixup(batch()[:2]).share for _ in range(400)])
    assert (shares > 0.9).mean() > 0.4  # Beta(0.2, 0.2): most blends are slight
