"""Pictures composed of two."""

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw
from trainers.data.composed import UNSEEN_WAYS, WAYS, compose, draw_pairs

RED, BLUE = (Image.new("RGB", (80, 60), colour) for colour in ("red", "blue"))
EVERY_WAY = [*WAYS, *UNSEEN_WAYS]


@pytest.mark.parametrize("way", EVERY_WAY)
def test_both_pictures_have_a_fair_part_of_the_frame(way: str) -> None:
    shares = []
    for seed in range(40):
        frame = compose(way, RED, BLUE, np.random.default_rng(seed))
        assert (frame.size, frame.mode) == ((80, 60), "RGB")
        shares.append(np.asarray(frame)[..., 0].mean() / 255)
    assert 0.15 < min(shares) < 0.5 < max(shares) < 0.85  # either is the larger one now and then


@pytest.mark.parametrize("way", EVERY_WAY)
def test_the_same_seed_gives_the_same_picture_and_another_seed_another(way: str) -> None:
    pictures = [np.asarray(compose(way, draw("rows", 1), draw("sky", 2), np.random.default_rng(s))) for s in (3, 3, 4)]
    assert np.array_equal(pictures[0], pictures[1])
    assert pictures[0].shape != pictures[2].shape or not np.array_equal(pictures[0], pictures[2])


def test_grey_pictures_stay_grey_and_one_in_colour_makes_colour() -> None:
    grey, large = RED.convert("L"), Image.new("L", (300, 31))
    for way in EVERY_WAY:
        assert compose(way, grey, large, np.random.default_rng(0)).mode == "L"
        assert compose(way, grey, BLUE, np.random.default_rng(0)).mode == "RGB"
        assert compose(way, Image.new("L", (1, 1)), large, np.random.default_rng(1)).size in ((1, 1), (300, 31))


def test_pairs_are_of_different_classes_and_use_every_picture_and_way_alike() -> None:
    targets = np.repeat([0, 1, 2], [2, 5, 9])
    pairs = draw_pairs(targets, 40, tuple(WAYS), seed=1)
    assert pairs == draw_pairs(targets, 40, tuple(WAYS), seed=1) != draw_pairs(targets, 40, tuple(WAYS), seed=2)
    assert all(targets[pair.first] != targets[pair.second] for pair in pairs)
    firsts = np.bincount([pair.first for pair in pairs], minlength=16)
    assert set(firsts) == {2, 3}
    assert {way: sum(pair.way == way for pair in pairs) for way in WAYS} == dict.fromkeys(WAYS, 10)


def test_pictures_of_one_class_are_refused() -> None:
    with pytest.raises(ValueError, match="give pictures of two classes"):
        draw_pairs(np.zeros(4, dtype=int), 4, tuple(WAYS), seed=0)


def test_one_way_is_kept_from_training_and_fitting() -> None:
    assert set(WAYS) == {"side_by_side", "stacked", "inset", "horizon"}
    assert not set(WAYS) & set(UNSEEN_WAYS)
