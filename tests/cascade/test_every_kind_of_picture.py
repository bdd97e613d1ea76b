"""Files of every kind that Pillow writes: right ones have the pixels of Pillow's own conversion, others none."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from PIL import Image

from cascade.errors import PictureError
from cascade.images.decoding import decode
from cascade.images.formats import FORMATS

Image.init()
GRID = np.random.default_rng(11).integers(0, 256, (37, 53, 4)).astype(np.uint8)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B", "F")


def drawn(mode: str) -> Image.Image:
    """Return a picture of noise in a mode."""
    colour = Image.fromarray(GRID)
    if mode.startswith("I;16"):
        return Image.fromarray((GRID[..., 0].astype(np.uint16) << 8) + GRID[..., 1]).convert(mode)
    if mode in ("I", "F"):
        return Image.fromarray(GRID[..., 0].astype(np.int32) * 257 if mode == "I" else GRID[..., 0].astype(np.float32))
    if mode in ("RGBA", "LA"):
        return colour.convert(mode)
    return colour.convert("LA").convert("PA") if mode == "PA" else colour.convert("RGB").convert(mode)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.copy().save(file, kind, **options)  # a picture remembers how it was saved
    return file.getvalue()


def expected(data: bytes) -> np.ndarray:
    """Return the pixels (H, W, 3) that Pillow's own conversions give: first frame, on white, 16 bits scaled to 8."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        if picture.mode.startswith("I"):
            values = np.asarray(picture).astype(np.int64)
            return np.repeat(np.rint(np.clip(values, 0, 65535) / 257)[..., None], 3, axis=2)
        if picture.has_transparency_data:
            laid = picture.convert("RGBA")
            return np.asarray(Image.alpha_composite(Image.new("RGBA", laid.size, "white"), laid).convert("RGB"))
        return np.asarray(picture.convert("RGB"))


def seen(data: bytes) -> np.ndarray:
    return np.asarray(decode(data).convert("RGB"))


def agrees(data: bytes) -> bool:
    return bool(np.abs(seen(data).astype(float) - expected(data)).max() <= 1)


# Formats that are no raster, need a handler of the user's, or that Pillow gives up.
NOT_TRIED = {"PDF", "BUFR", "GRIB", "HDF5", "WMF", "IM"}


def written() -> Iterator[tuple[str, str, bytes]]:
    """Yield format, mode and bytes of every mode that Pillow saves in every format that it writes."""
    for kind in sorted(set(Image.SAVE) - NOT_TRIED):
        for mode in MODES:
            try:
                yield kind, mode, encoded(drawn(mode), kind)
            except (OSError, KeyError, ValueError, TypeError):  # this format has no such mode
                continue


WRITTEN = {f"{kind}-{mode}": (kind, data) for kind, mode, data in written()}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_mode_of_every_format_is_answered_as_pillow_shows_it_or_refused(name: str) -> None:
    kind, data = WRITTEN[name]
    if kind in (*FORMATS, "MPO") and Image.open(io.BytesIO(data)).mode != "F":
        assert agrees(data)
    else:
        with pytest.raises(PictureError):
            decode(data)


COLOUR, ALPHA, GREY, BITS = drawn("RGB"), drawn("RGBA"), drawn("L"), drawn("1")


def animated(kind: str, **options: object) -> bytes:
    more = [COLOUR.rotate(180), GREY.convert("RGB")]
    return encoded(COLOUR, kind, save_all=True, append_images=more, **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def interlaced_png(pixels: np.ndarray) -> bytes:
    """Return an RGB PNG in the seven passes of Adam7, which Pillow does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [pixels[top::down, left::right] for top, left, down, right in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part if row.size)
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(width: int, height: int, bits: int, compression: int, body: bytes, palette: bytes = b"") -> bytes:
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, len(palette) // 4, 0)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + header + palette + body


def tiff(width: int, bits: int, data: bytes, planes: int = 1) -> bytes:
    """Return a TIFF without compression, its colours in planes one after another, or grey of few bits."""
    count = 3 if planes == 3 else 1
    height = len(data) * 8 // bits // width // planes
    where = 8 + len(data)
    tables = struct.pack(f"<{count}H", *[bits] * count) + struct.pack(
        f"<{2 * planes}I", *(8 + n * len(data) // planes for n in range(planes)), *[len(data) // planes] * planes
    )
    tags = {256: (4, 1, width), 257: (4, 1, height), 259: (4, 1, 1), 262: (4, 1, 2 if count == 3 else 1)}
    tags |= {258: (3, count, where if count > 2 else bits), 277: (4, 1, count), 278: (4, 1, height)}
    starts = where + 2 * count
    tags |= {273: (4, planes, starts if planes > 1 else 8), 284: (4, 1, 2 if planes > 1 else 1)}
    tags |= {279: (4, planes, starts + 4 * planes if planes > 1 else len(data))}
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted(tags.items()))
    ifd = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", where + len(tables)) + data + tables + ifd


PLANES = GRID[..., :3].transpose(2, 0, 1).tobytes()
RUNS = b"\x05\x07\x00\x03\x01\x02\x03\x00\x00\x00\x08\x09\x00\x00\x00\x01"  # 5 times 7, then 1 2 3; 8 times 9
GREYS = b"".join(bytes([n, n, n, 0]) for n in range(256))
WITHOUT_JFIF = encoded(COLOUR, "JPEG", quality=90)
PALETTE = COLOUR.quantize(16)

ODD: dict[str, Callable[[], bytes]] = {
    "JPEG progressive": lambda: encoded(COLOUR, "JPEG", progressive=True),
    "JPEG restart markers": lambda: encoded(COLOUR, "JPEG", restart_marker_blocks=2),
    "JPEG restart rows": lambda: encoded(GREY, "JPEG", restart_marker_rows=1),
    "JPEG 4:4:4": lambda: encoded(COLOUR, "JPEG", subsampling=0, quality=100),
    "JPEG 4:2:2": lambda: encoded(COLOUR, "JPEG", subsampling=1, optimize=True),
    "JPEG CMYK by Adobe": lambda: encoded(drawn("CMYK"), "JPEG", quality=95),
    "JPEG RGB by Adobe": lambda: encoded(COLOUR, "JPEG", keep_rgb=True),
    "JPEG without JFIF": lambda: WITHOUT_JFIF[:2] + WITHOUT_JFIF[20:],
    "JPEG comment": lambda: encoded(COLOUR, "JPEG", comment=b"\xff\xd9 \xff\xd8 a comment"),
    "MPO": lambda: animated("MPO"),
    "PNG interlaced": lambda: interlaced_png(GRID[..., :3]),
    **{f"PNG {bits} bits": lambda bits=bits: encoded(COLOUR.quantize(2**bits), "PNG", bits=bits) for bits in (1, 2, 4)},
    "PNG grey key": lambda: encoded(GREY, "PNG", transparency=int(GRID[0, 0, 0])),
    "PNG colour key": lambda: encoded(COLOUR, "PNG", transparency=tuple(map(int, GRID[0, 0, :3]))),
    "PNG palette alpha": lambda: encoded(PALETTE, "PNG", transparency=bytes(range(0, 160, 10))),
    "PNG animated": lambda: animated("PNG"),
    "PNG animated without its default": lambda: animated("PNG", default_image=True),
    **{f"GIF disposal {way}": lambda way=way: animated("GIF", disposal=way) for way in range(4)},
    "GIF interlaced": lambda: encoded(PALETTE, "GIF", interlace=1),
    "GIF straight": lambda: encoded(PALETTE, "GIF", interlace=0),
    "GIF transparent": lambda: encoded(PALETTE, "GIF", transparency=3),
    "GIF comment": lambda: encoded(PALETTE, "GIF", comment=b"x" * 600),
    **{
        f"TIFF {way}": lambda way=way: encoded(COLOUR, "TIFF", compression=way)
        for way in ("tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "jpeg", "packbits", "lzma", "zstd")
    },
    **{f"TIFF {way}": lambda way=way: encoded(BITS, "TIFF", compression=way) for way in ("group3", "group4")},
    "TIFF old fax": lambda: encoded(BITS, "TIFF", compression="tiff_ccitt"),
    "TIFF alpha": lambda: encoded(ALPHA, "TIFF", compression="tiff_lzw"),
    "TIFF predicted": lambda: encoded(COLOUR, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
    "TIFF big": lambda: encoded(COLOUR, "TIFF", big_tiff=True),
    "TIFF pages": lambda: animated("TIFF", compression="tiff_lzw"),
    "TIFF in strips": lambda: encoded(COLOUR, "TIFF", compression="tiff_lzw", strip_size=500),
    "TIFF planes": lambda: tiff(53, 8, PLANES, planes=3),
    **{f"TIFF {bits} bits": lambda bits=bits: tiff(48, bits, GRID[..., 0].tobytes()[:1920]) for bits in (1, 2, 4)},
    "BMP top down": lambda: bmp(8, -4, 24, 0, GRID.tobytes()[:96]),
    "BMP runs": lambda: bmp(8, 2, 8, 1, RUNS, GREYS),
    "BMP 16 bits": lambda: bmp(8, 4, 16, 0, GRID.tobytes()[:64]),
    "BMP 4 bits": lambda: bmp(8, 4, 4, 0, GRID.tobytes()[:16], GRID.tobytes()[:64]),
    "BMP in a DIB of OS/2": lambda: b"BM" + struct.pack("<IHHIIHHHH", 122, 0, 0, 26, 12, 8, 4, 1, 24) + PLANES[:96],
    "WEBP lossless": lambda: encoded(COLOUR, "WEBP", lossless=True),
    "WEBP alpha": lambda: encoded(ALPHA, "WEBP", lossless=True, exact=True),
    "WEBP lossy alpha": lambda: encoded(ALPHA, "WEBP", quality=60, alpha_quality=40),
    "WEBP animated": lambda: animated("WEBP"),
    "AVIF alpha": lambda: encoded(ALPHA, "AVIF", quality=100),
    "AVIF 4:0:0": lambda: encoded(COLOUR, "AVIF", subsampling="4:0:0"),
    "AVIF animated": lambda: animated("AVIF"),
    "PPM bits as text": lambda: b"P1\n# a comment\n3 2\n1 0 1\n0 1 0\n",
    "PPM grey as text": lambda: b"P2 3 2 255 0 10 20 30 40 255\n",
    "PPM colour as text": lambda: b"P3\n2 1\n255\n1 2 3 4 5 6\n",
    "PPM grey": lambda: b"P5 3 2 255\n" + bytes(range(6)),
    "PPM 16 bits": lambda: b"P5 3 2 65535\n" + bytes(range(12)),
}


@pytest.mark.parametrize("name", ODD)
def test_every_way_to_write_a_format_is_answered_as_pillow_shows_it(name: str) -> None:
    try:
        data = ODD[name]()
    except OSError as error:  # a codec that this Pillow was built without
        pytest.skip(str(error))
    assert agrees(data)


@cache
def tried() -> dict[str, bytes]:
    read = {name: data for name, (kind, data) in WRITTEN.items() if kind in FORMATS and not name.endswith("-F")}
    return read | {name: make() for name, make in ODD.items()}


@pytest.mark.parametrize("quarter", [0, 1, 2, 3, 4])
def test_a_file_cut_anywhere_is_an_error_unless_nothing_of_the_picture_is_missing(quarter: int) -> None:
    passed = {}
    for name, data in tried().items():
        cut = data[: len(data) * quarter // 4 - (quarter == 4)]
        try:
            found = seen(cut)
        except PictureError:
            continue
        passed[name] = np.array_equal(found, seen(data))
    assert all(passed.values()), {name for name, same in passed.items() if not same}
    assert quarter or not passed


@pytest.mark.parametrize("seed", range(6))
def test_bytes_changed_anywhere_are_an_error_or_a_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for data in tried().values():
        broken = bytearray(data)
        for place in rng.integers(0, min(len(broken), 200 if seed % 2 else len(broken)), 4):
            broken[place] = rng.integers(0, 256)
        with contextlib.suppress(PictureError):
            assert decode(bytes(broken)).mode in ("L", "RGB")
