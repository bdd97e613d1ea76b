"""The one preprocessing."""

import msgspec
import numpy as np
import pytest
from PIL import Image

from cascade.images.preprocess import PreprocessSpec, preprocess

GREY = Image.fromarray((np.arange(60 * 80) % 251).astype(np.uint8).reshape(60, 80))


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_a_grey_file_and_the_same_picture_in_colour_give_the_same_bytes(colour: str, resize: str) -> None:
    spec = PreprocessSpec(size=32, colour=colour, resize=resize)
    assert np.array_equal(preprocess(GREY, spec), preprocess(GREY.convert("RGB"), spec))


def test_grey_pixels_are_equal_in_all_channels() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    pixels = preprocess(photo, PreprocessSpec(size=24, colour="grey"))
    assert pixels.shape == (24, 24, 3)
    assert pixels.dtype == np.uint8
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_crop_sees_the_centre_alone() -> None:
    wide = np.zeros((40, 100), dtype=np.uint8)
    wide[:, 30:70] = 200
    assert (preprocess(Image.fromarray(wide), PreprocessSpec(size=40, resize="crop")) == 200).all()
    assert (preprocess(Image.fromarray(wide), PreprocessSpec(size=40, resize="squash")) == 0).any()


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    photo = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(preprocess(Image.fromarray(photo), PreprocessSpec(size=32)), photo)


def test_one_pixel_wide_is_enough() -> None:
    assert preprocess(Image.new("L", (1, 300), 7), PreprocessSpec(size=16)).max() == 7


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="resize"):
        msgspec.convert({"size": 32, "resize": "stretch"}, PreprocessSpec)


def test_a_crop_takes_its_share_of_the_shorter_side() -> None:
    framed = np.zeros((100, 140), dtype=np.uint8)
    framed[10:90, 30:110] = 200  # the middle 80 of 100
    cropped = preprocess(Image.fromarray(framed), PreprocessSpec(size=40, resize="crop", crop=0.8))
    assert cropped.min() > 150  # the resampling at the very edge reads a little of what lies beside it
    assert (cropped[4:-4, 4:-4] == 200).all()
    assert (preprocess(Image.fromarray(framed), PreprocessSpec(size=40, resize="crop")) == 0).any()
