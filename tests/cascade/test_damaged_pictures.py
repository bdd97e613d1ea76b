"""Pictures as bugs, cameras and attackers write them: answered as a viewer shows them, or refused alone."""

import io
import struct
import sys
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL import features as pillow_features

from cascade.errors import PictureError, TooManyPixelsError, UnknownFormatError
from cascade.images.decoding import decode

NOISE = np.random.default_rng(7).integers(0, 256, (90, 120, 3)).astype(np.uint8)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png(rows: bytes, width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG whose data are the given rows, right or not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, bits: int, photometric: int, packed: bytes | None = None, **more: int) -> bytes:
    """Return a grey TIFF of one strip; ``packed`` are its bytes where they are not those of the array."""
    data = packed if packed is not None else pixels.tobytes()
    data += b"\0" * (len(data) % 2)
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height, 273: 8, 279: len(data)}
    tags |= {int(name[1:]): value for name, value in more.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def exif(orientation: int, *broken: bytes) -> bytes:
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0), *broken]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize(
    "broken",
    [
        struct.pack("<HHII", 0x011A, 10, 1, 0xFFFFFF),  # a rational that lies nowhere
        struct.pack("<HHI4s", 0x011A, 2, 3, b"72\0\0"),  # text where a number belongs
        struct.pack("<HHII", 0x0128, 4, 1, 70000),
        struct.pack("<HHII", 0x0132, 5, 1, 26),
        struct.pack("<HHII", 0x8769, 4, 1, 8),  # a directory inside of itself
        struct.pack("<HHII", 0x010F, 99, 2**31, 0),  # a type that does not exist
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_metadata_of_any_kind_beside_an_orientation_leave_the_orientation(kind: str, broken: bytes) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(NOISE), kind, exif=exif(6, broken), **options)
    plain = np.asarray(decode(encoded(Image.fromarray(NOISE), kind, **options)))
    assert np.array_equal(np.asarray(decode(data)), np.rot90(plain, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int) -> None:
    upright = [
        NOISE, NOISE[:, ::-1], NOISE[::-1, ::-1], NOISE[::-1],
        NOISE.swapaxes(0, 1), np.rot90(NOISE, -1), NOISE[::-1, ::-1].swapaxes(0, 1), np.rot90(NOISE),
    ]  # fmt: skip
    data = encoded(Image.fromarray(NOISE), "PNG", exif=exif(orientation))
    assert np.array_equal(np.asarray(decode(data)), upright[orientation - 1])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 40, "subsampling": 0}])
@pytest.mark.parametrize("side", [None, 40])
def test_a_jpeg_that_lacks_its_end_marker_alone_is_answered(options: dict[str, object], side: int | None) -> None:
    data = encoded(Image.fromarray(NOISE), "JPEG", **options)
    whole = np.asarray(decode(data, least_size=side))
    assert np.array_equal(np.asarray(decode(data[:-2], least_size=side)), whole)
    assert np.array_equal(np.asarray(decode(data[:-1], least_size=side)), whole)


@pytest.mark.parametrize("missing", [20, 200, 1500, 4000])
def test_a_jpeg_that_ends_before_its_picture_is_an_error(missing: int) -> None:
    data = encoded(Image.fromarray(NOISE), "JPEG", quality=90)[:-missing]
    with pytest.raises(PictureError, match="damaged or incomplete"):
        decode(data)


@pytest.mark.parametrize("missing", [400, 1500, 4000])
@pytest.mark.parametrize("after", [b"", b"a comment of some tool"], ids=["at its end", "before more"])
def test_a_jpeg_whose_rows_were_cut_out_before_its_end_marker_is_an_error(missing: int, after: bytes) -> None:
    data = encoded(Image.fromarray(NOISE), "JPEG", quality=90)[:-missing] + b"\xff\xd9" + after
    with pytest.raises(PictureError, match="damaged or incomplete"):
        decode(data)


@pytest.mark.parametrize("colour", ["white", "black", (90, 120, 250)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_a_picture_whose_last_rows_are_of_one_colour_is_answered(kind: str, colour: object) -> None:
    picture = Image.fromarray(NOISE)
    picture.paste(colour, (0, 40, 120, 90))
    assert decode(encoded(picture, kind)).size == (120, 90)
    assert decode(encoded(picture.convert("L"), kind)).size == (120, 90)


@pytest.mark.parametrize("rows", [0, 1, 45, 89])
def test_a_png_whose_data_end_early_is_an_error(rows: int) -> None:
    data = png(b"".join(b"\0" + NOISE[row].tobytes() for row in range(rows)), 120, 90)
    with pytest.raises(PictureError, match="damaged or incomplete"):
        decode(data)


def test_a_colour_key_is_laid_on_white() -> None:
    key = tuple(int(value) for value in NOISE[0, 0])
    seen = np.asarray(decode(encoded(Image.fromarray(NOISE), "PNG", transparency=key)))
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(seen[1:], NOISE[1:])
    grey = Image.fromarray(NOISE[..., 0])
    seen = np.asarray(decode(encoded(grey, "PNG", transparency=int(NOISE[0, 0, 0]))).convert("L"))
    assert seen[0, 0] == 255


DEEP = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)


def test_sixteen_bits_where_white_is_zero_are_turned_round() -> None:
    upright = np.asarray(decode(tiff(DEEP, 16, photometric=1)))
    assert np.array_equal(np.asarray(decode(tiff(DEEP, 16, photometric=0))), 255 - upright)


def test_twelve_bits_are_scaled_by_their_own_range() -> None:
    values = (DEEP >> 4).astype(np.uint32)  # 0 to 4095
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    seen = np.asarray(decode(tiff(DEEP, 12, photometric=1, packed=packed.astype(np.uint8).tobytes())))
    assert np.abs(seen.astype(int) - np.rint(values / 4095 * 255)).max() <= 1
    assert seen.max() == 255


@pytest.mark.parametrize("most", [1, 100, 200, 1000, 4095, 65534])
@pytest.mark.parametrize("magic", [b"P5", b"P6"])
def test_a_portable_pixmap_of_any_greatest_value_is_scaled(magic: bytes, most: int) -> None:
    bands = 1 if magic == b"P5" else 3
    values = np.random.default_rng(0).integers(0, most + 1, (7, 9, bands))
    kind = np.uint8 if most < 256 else ">u2"
    data = magic + b"\n# made here\n9 7\n%d\n" % most + values.astype(kind).tobytes()
    seen = np.asarray(decode(data)).reshape(7, 9, bands)
    assert np.abs(seen - values / most * 255).max() <= 0.5 + 1e-9
    with pytest.raises(PictureError, match="damaged or incomplete"):
        decode(data[:-1])


def test_a_large_portable_pixmap_takes_no_python_per_pixel() -> None:
    data = b"P6 3000 2000 254\n" + bytes(3000 * 2000 * 3)
    started = time.process_time()
    assert decode(data).size == (3000, 2000)
    by_pixel = time.process_time() - started
    started = time.process_time()
    sum(min(255, round(value / 254 * 255)) for value in range(3000 * 200))  # a thirtieth of its values
    assert by_pixel < 10 * (time.process_time() - started)
    with pytest.raises(TooManyPixelsError, match="as text"):
        decode(b"P3 3000 2000 255\n" + b"0 " * 100)


def profile_of(space: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def swapped_profile() -> bytes:
    """Return an RGB profile that is far from sRGB: its red and green primaries have changed places."""
    content = bytearray(profile_of("sRGB"))
    table = {bytes(content[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(content[131])}
    red, green = (slice(table[name] + 4, table[name] + 12) for name in (b"rXYZ", b"gXYZ"))
    content[red], content[green] = content[green], content[red]
    start = int.from_bytes(content[table[b"desc"] + 4 : table[b"desc"] + 8], "big")
    length = int.from_bytes(content[table[b"desc"] + 8 : table[b"desc"] + 12], "big")
    content[start : start + length] = content[start : start + length].replace(b"\0s\0R\0G\0B", b"\0m\0i\0n\0e")
    return bytes(content)


@pytest.mark.skipif(not pillow_features.check("littlecms2"), reason="this Pillow was built without LittleCMS")
def test_an_embedded_profile_is_converted_to_srgb_in_every_format() -> None:
    profile = swapped_profile()
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        seen = np.asarray(decode(encoded(Image.fromarray(NOISE), kind, icc_profile=profile, **options))).astype(int)
        assert np.abs(seen - NOISE[..., [1, 0, 2]]).mean() < 3
        assert np.abs(seen - NOISE).mean() > 20


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 200, profile_of("LAB"), profile_of("sRGB")])
def test_a_profile_that_is_broken_mismatched_or_srgb_changes_nothing(profile: bytes) -> None:
    data = encoded(Image.fromarray(NOISE), "PNG", icc_profile=profile)
    assert np.array_equal(np.asarray(decode(data)), NOISE)
    grey = encoded(Image.fromarray(NOISE[..., 0]), "PNG", icc_profile=profile)
    assert np.array_equal(np.asarray(decode(grey)), NOISE[..., 0])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(np.zeros((16, 16), np.uint8), 8, 1, t322=46336, t323=46320, t324=8, t325=256), "tiles of 46336x46320"),
        (encoded(Image.new("L", (1, 2_000_000)), "PNG"), "100 to 1"),
        (encoded(Image.new("RGB", (16383, 16383)), "WEBP", lossless=True), "over the limit of 120,000,000 pixels"),
        (encoded(Image.new("1", (10_000, 10_000)), "TIFF", compression="group4"), "as no photo has"),
        (png(zlib.compress(b""), 8000, 8000), "as no photo has"),
    ],
    ids=["tile", "thin", "webp", "group4", "png"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_a_few_bytes_declare_is_refused_before_it_is_decoded(data: bytes, words: str) -> None:
    assert len(data) < 100_000
    with pytest.raises(TooManyPixelsError, match=words):
        decode(data)


@pytest.mark.parametrize("size", [(5000, 100), (100, 5000), (1, 300), (4000, 3000)])
def test_panoramas_and_small_strips_are_answered(size: tuple[int, int]) -> None:
    assert decode(encoded(Image.new("RGB", size, "teal"), "PNG")).size == size


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "HEIC picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"<?xml version='1.0'?><svg/>", "XML"),
    ],
)
def test_a_refusal_names_the_format_and_the_way_out(head: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnknownFormatError, match=f"{words}.* save it as"):
        decode(head)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "AVIF", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_a_format_is_known_by_its_first_bytes_whatever_the_name(kind: str, tmp_path: object) -> None:
    assert decode(encoded(Image.fromarray(NOISE), kind)).size == (120, 90)


def boom(error: BaseException) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory that is left"),
        (RecursionError("deep"), "damaged or incomplete: deep"),
        (struct.error("unpack"), "damaged or incomplete: unpack"),
        (KeyError("x"), "damaged or incomplete"),
        (AssertionError(), "damaged or incomplete: AssertionError"),
    ],
)
def test_whatever_a_decoder_raises_is_the_error_of_its_picture(
    error: BaseException, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.fromarray(NOISE), "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", boom(error))
    with pytest.raises(PictureError, match=words) as caught:
        decode(data)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # which would hold the decoder's frames and the pixels in them
