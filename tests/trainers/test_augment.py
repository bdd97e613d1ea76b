"""Augmentation policies: what they may do to a picture."""

import numpy as np
import pytest
import torch

from tests.conftest import draw
from trainers.data.augment import augmentation
from trainers.recipe import AUGMENTATIONS


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_every_policy_gives_a_square_of_the_same_mode_and_follows_the_seed(name: str, mode: str) -> None:
    policy = augmentation(name, 64)
    assert policy
    for size in ((90, 70), (40, 33), (64, 300)):
        picture = draw("dots", 1, size).convert(mode)
        results = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            results.append(policy(picture))
        assert all((one.size, one.mode) == ((64, 64), mode) for one in results)
        assert results[0].tobytes() == results[1].tobytes() != results[2].tobytes()


@pytest.mark.parametrize("name", ["robust", "mild"])
def test_a_coloured_picture_is_shown_in_grey_now_and_then(name: str) -> None:
    policy = augmentation(name, 32)
    assert policy
    picture = draw("dots", 2)
    torch.manual_seed(0)
    grey = [np.ptp(np.asarray(policy(picture)).astype(int), axis=2).max() <= 1 for _ in range(200)]
    assert 0.15 < np.mean(grey) < 0.5
