"""Decoding: each kind of file gives the pixels that a person would see."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.errors import PictureError, TooManyPixelsError
from cascade.images.decoding import MAX_PIXELS, decode
from cascade.images.preprocess import Interpolation, PreprocessSpec, least_size, preprocess

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5  # (6, 8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)  # (6, 8, 3)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pixels(source: object) -> np.ndarray:
    return np.asarray(decode(source))


def test_grey_and_colour_come_back_as_they_are() -> None:
    assert np.array_equal(pixels(encoded(Image.fromarray(GREY))), GREY)
    assert np.array_equal(pixels(encoded(Image.fromarray(COLOUR))), COLOUR)


def test_a_path_bytes_a_picture_and_an_array_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(COLOUR)))
    for source in (path, str(path), path.read_bytes(), Image.fromarray(COLOUR), COLOUR):
        assert np.array_equal(pixels(source), COLOUR)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn a quarter clockwise
    turned = pixels(encoded(Image.fromarray(COLOUR), exif=exif))
    assert np.array_equal(turned, np.rot90(COLOUR, -1))


def test_transparency_is_laid_on_white() -> None:
    alpha = np.zeros((6, 8), dtype=np.uint8)
    alpha[:, :4] = 255
    seen = pixels(encoded(Image.fromarray(np.dstack([COLOUR, alpha]))))
    assert np.array_equal(seen[:, :4], COLOUR[:, :4])
    assert (seen[:, 4:] == 255).all()


def test_grey_with_transparency_is_laid_on_white() -> None:
    alpha = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8) * np.ones((6, 1), dtype=np.uint8)
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    seen = pixels(encoded(grey_alpha))
    assert np.array_equal(seen[:, :4, 0], GREY[:, :4])
    assert (seen[:, 4:] == 255).all()


def test_a_palette_becomes_its_colours() -> None:
    picture = Image.new("P", (4, 2), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    assert (pixels(encoded(picture)) == (200, 100, 50)).all()


def test_a_transparent_palette_colour_becomes_white() -> None:
    picture = Image.new("P", (4, 2), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    assert (pixels(encoded(picture, transparency=1)) == 255).all()


def test_cmyk_becomes_rgb() -> None:
    seen = pixels(encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95))
    assert seen.shape == (16, 16, 3)
    assert np.abs(seen.reshape(-1, 3).mean(axis=0) - (0, 255, 255)).max() < 4


def test_sixteen_bits_are_scaled_to_eight() -> None:
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    assert pixels(encoded(Image.fromarray(deep))).tolist() == [[0, 0, 1, 1, 128, 255]]


def test_one_bit_becomes_black_and_white() -> None:
    assert pixels(encoded(Image.fromarray(GREY > 100))).tolist() == np.where(GREY > 100, 255, 0).tolist()


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels(data) == (255, 0, 0)).all()


def test_the_callers_picture_is_left_alone() -> None:
    own = Image.fromarray(COLOUR)
    decoded = decode(own)
    decoded.putpixel((0, 0), (1, 2, 3))
    assert own.getpixel((0, 0)) != (1, 2, 3)


def huge_png() -> bytes:
    """Return a valid PNG header that promises 30,000 x 30,000 pixels."""
    small = bytearray(encoded(Image.new("L", (1, 1))))
    small[16:24] = (30_000).to_bytes(4, "big") * 2
    import zlib

    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4, "big")
    return bytes(small)


JPEG = encoded(Image.fromarray(np.tile(COLOUR, (20, 20, 1))), "JPEG")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"just some text", "no picture of a known format"),
        (JPEG[: len(JPEG) // 2], "damaged or incomplete"),
        (huge_png(), f"limit of {MAX_PIXELS:,}"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture of a known format"),
        (np.zeros((4, 4), dtype=np.float32), "expected uint8"),
        (np.zeros((4, 4, 4), dtype=np.uint8), "expected uint8"),
        (np.zeros((0, 4), dtype=np.uint8), "expected uint8"),
        (Image.new("F", (4, 4)), "floating-point"),
    ],
    ids=[
        "empty",
        "text",
        "truncated",
        "30000x30000",
        "svg",
        "float array",
        "four channels",
        "no rows",
        "float picture",
    ],
)
def test_what_cannot_be_read_says_why(data: object, words: str) -> None:
    with pytest.raises(PictureError, match=words):
        decode(data)


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="cannot be opened: Is a directory"):
        decode(tmp_path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="cannot be opened"):
        decode(tmp_path / "none.jpg")


def test_the_size_limit_is_checked_before_the_pixels_are_read() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    over = Image.new("1", (side, side))
    with pytest.raises(PictureError, match="over the limit"):
        decode(over)


def large_jpeg(width: int, height: int, mode: str, **options: object) -> bytes:
    """Return a JPEG with edges, fine texture and noise, which are what reduced decoding could get wrong."""
    y, x = np.mgrid[0:height, 0:width]
    value = 128 + 50 * np.sin(x * y / 9000) + 40 * ((x // 97 + y // 61) % 2) - 20
    noise = np.random.default_rng(4).normal(0, 12, (height, width, 3))
    pixels = np.clip(value[..., None] * (0.9, 1.0, 0.8) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", quality=88, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("size", "scale"), [((3000, 2200), 2), ((2900, 3000), 4)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_what_models_see_of_a_reduced_photo_is_within_six_levels(
    mode: str, size: tuple[int, int], scale: int, interpolation: Interpolation
) -> None:
    data = large_jpeg(*size, mode, progressive=scale == 4)
    for spec in (
        PreprocessSpec(size=224, interpolation=interpolation, colour="grey"),
        PreprocessSpec(size=352, interpolation=interpolation, resize="crop"),
    ):
        reduced = decode(data, least_size=least_size(spec))
        assert reduced.size == (math.ceil(size[0] / scale), math.ceil(size[1] / scale))
        assert min(reduced.size) >= 2 * spec.size
        difference = np.abs(preprocess(reduced, spec).astype(int) - preprocess(decode(data), spec))
        assert difference.max() <= 6
        assert difference.mean() <= 1.5


def test_a_picture_below_twice_the_least_size_and_other_formats_are_decoded_whole() -> None:
    data = large_jpeg(1500, 1400, "RGB")
    whole = decode(data)
    assert decode(data, least_size=704).tobytes() == whole.tobytes()
    file = io.BytesIO()
    whole.resize((2900, 2800)).save(file, "PNG", compress_level=1)
    assert decode(file.getvalue(), least_size=704).size == (2900, 2800)


@pytest.mark.parametrize("size", [(1407, 1500), (1408, 1500), (2301, 2113)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_large_array_is_averaged_over_whole_squares(size: tuple[int, int], mode: str) -> None:
    whole = np.asarray(Image.effect_noise(size, 90).convert(mode))  # (H, W) or (H, W, 3)
    factor = min(size) // 704
    expected = Image.fromarray(whole).reduce(factor)
    for array in (whole, np.frombuffer(whole.tobytes(), np.uint8).reshape(whole.shape), np.asfortranarray(whole)):
        reduced = decode(array, least_size=704)
        assert (reduced.mode, reduced.size) == (mode, expected.size)
        assert reduced.tobytes() == expected.tobytes()
        assert decode(array).size == size
    assert min(reduced.size) >= 704


def test_what_models_see_of_a_large_array_is_within_six_levels() -> None:
    whole = decode(large_jpeg(2900, 3000, "RGB"))
    for spec in (PreprocessSpec(size=224, colour="grey"), PreprocessSpec(size=352, resize="crop")):
        reduced = decode(np.asarray(whole), least_size=least_size(spec))
        difference = np.abs(preprocess(reduced, spec).astype(int) - preprocess(whole, spec))
        assert difference.max() <= 6
        assert difference.mean() <= 1.5


def test_the_limit_holds_for_the_whole_picture_not_for_the_reduced_one() -> None:
    with pytest.raises(TooManyPixelsError, match="3000x2200"):
        decode(large_jpeg(3000, 2200, "L"), max_pixels=3_000_000, least_size=704)


def test_larger_models_keep_twice_their_side() -> None:
    assert [least_size(PreprocessSpec(size=size)) for size in (16, 224, 352, 353, 704, 705)] == [
        *[704] * 3,
        *[1408] * 2,
        2816,
    ]
