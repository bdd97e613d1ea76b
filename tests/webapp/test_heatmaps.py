"""Activation maps as pictures."""

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from cascade.images.preprocess import PreprocessSpec
from webapp.pages.heatmaps import colours, evidence, heat_picture

SQUASH = PreprocessSpec(size=64)
CROP = PreprocessSpec(size=64, resize="crop")


def test_the_colours_are_perceptually_uniform_and_rise_in_lightness() -> None:
    lab = rgb2lab(colours()[np.newaxis])[0]  # (256, 3)
    assert (np.diff(lab[::8, 0]) > 0).all()
    assert unevenness(colours() / 255) < unevenness(colormaps["magma"](np.arange(256))[:, :3])


def unevenness(table: np.ndarray) -> float:
    """Return the largest of 31 steps over the smallest, by CIEDE2000: another measure than the colours were made by."""
    lab = rgb2lab(table[np.newaxis])[0]
    steps = deltaE_ciede2000(lab[:-8:8], lab[8::8])
    return float(steps.max() / steps.min())


def test_evidence_has_one_scale_and_none_against_a_class() -> None:
    maps = np.array([[[4.0, -1.0]], [[1.0, 2.0]]])
    assert evidence(maps).tolist() == [[[1, 0]], [[0.25, 0.5]]]
    assert not evidence(-maps - 5).any()


def test_a_map_covers_the_whole_picture_or_the_part_that_was_seen() -> None:
    picture = Image.new("RGB", (120, 60), (200, 200, 200))
    hot = np.ones((7, 7))
    whole = np.asarray(heat_picture(picture, hot, SQUASH))
    assert whole.shape == (60, 120, 3)
    assert len(np.unique(whole.reshape(-1, 3), axis=0)) == 1
    cropped = np.asarray(heat_picture(picture, hot, CROP))
    assert (cropped[:, 30:90] == whole[:, 30:90]).all()
    assert (cropped[:, :30] == 200).all()
    assert (cropped[:, 90:] == 200).all()


def test_the_hottest_place_lies_where_the_evidence_does() -> None:
    cold = np.zeros((7, 7))
    cold[1, 5] = 1
    blended = np.asarray(heat_picture(Image.new("L", (140, 70), 128), cold, SQUASH)).astype(int)
    warmth = blended[..., 0] - blended[..., 2]  # red over blue
    row, column = np.unravel_index(warmth.argmax(), warmth.shape)
    assert 10 <= row < 20
    assert 100 <= column < 120


@pytest.mark.parametrize("spec", [SQUASH, CROP], ids=["squash", "crop"])
@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1), (2, 301)])
def test_a_picture_one_pixel_wide_has_a_map(size: tuple[int, int], spec: PreprocessSpec) -> None:
    assert heat_picture(Image.new("L", size), np.ones((7, 7)), spec).size == size
