"""Picture formats: which are read, how a file of each begins, and the way out for those that are not read."""

from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

from cascade.errors import UnknownFormatError

HEAD = 64  # bytes that tell a format

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
    | {".avif", ".heic", ".heif"}
)
# Files that stand beside pictures and are none: they need not be opened to find out.
_OTHERS = frozenset(
    {".txt", ".csv", ".json", ".jsonl", ".xml", ".md", ".html", ".pdf", ".yaml", ".yml", ".toml", ".log", ".ini"}
    | {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".parquet", ".db", ".npy", ".npz", ".h5", ".pt", ".onnx"}
    | {".mp4", ".mov", ".avi", ".mkv", ".mp3", ".wav", ".aae", ".xmp", ".thm", ".py", ".ipynb", ".exe"}
)
HEIF = "HEIF"  # read where pillow-heif is installed

_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@dataclass(frozen=True)
class _Signature:
    """How files of one format begin: bytes at a place."""

    format: str
    start: bytes
    place: int = 0


_READ = (
    _Signature("JPEG", b"\xff\xd8\xff"),
    _Signature("PNG", b"\x89PNG\r\n\x1a\n"),
    _Signature("WEBP", b"WEBP", 8),
    _Signature("GIF", b"GIF87a"),
    _Signature("GIF", b"GIF89a"),
    _Signature("BMP", b"BM"),
    _Signature("TIFF", b"II*\0"),
    _Signature("TIFF", b"MM\0*"),
    _Signature("TIFF", b"II+\0"),
    _Signature("TIFF", b"MM\0+"),
    *(_Signature("PPM", b"P%d" % kind + space) for kind in range(1, 7) for space in (b"\n", b" ", b"\t", b"\r", b"#")),
)
_NOT_READ = (
    _Signature("JPEG XL", b"\xff\x0a"),
    _Signature("JPEG XL", b"JXL ", 4),
    _Signature("JPEG 2000", b"\xff\x4f\xff\x51"),
    _Signature("JPEG 2000", b"jP  ", 4),
    _Signature("Photoshop", b"8BPS"),
    _Signature("PDF", b"%PDF"),
    _Signature("icon", b"\0\0\1\0"),
    _Signature("OpenEXR", b"\x76\x2f\x31\x01"),
    _Signature("Radiance HDR", b"#?RADIANCE"),
    _Signature("DirectDraw", b"DDS "),
    _Signature("SVG", b"<svg"),
    _Signature("XML", b"<?xml"),
    _Signature("HTML", b"<!doctype html"),
    _Signature("HTML", b"<html"),
    _Signature("Canon raw", b"ftypcrx", 4),
    _Signature("Fujifilm raw", b"FUJIFILMCCD-RAW"),
)


def named_as_picture(name: str) -> bool | None:
    """Return whether a file is a picture by the ending of its name; None where that says nothing."""
    ending = PurePosixPath(name).suffix.lower()
    return True if ending in SUFFIXES else False if ending in _OTHERS else None


def format_of(head: bytes) -> str | None:
    """Return the format of a picture by its first ``HEAD`` bytes: one of ``FORMATS``, ``HEIF``, or None."""
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[place : place + 4] for place in range(16, min(len(head), _box_end(head)), 4))}
        if not brands.isdisjoint(_AVIF_BRANDS):
            return "AVIF"
        return None if brands.isdisjoint(_HEIF_BRANDS) else HEIF
    return next((one.format for one in _READ if head.startswith(one.start, one.place)), None)


def checked_format(head: bytes) -> str:
    """Return the format of a picture by its first ``HEAD`` bytes.

    Raises
    ------
    UnknownFormatError
        The format is not read here; the message names it where it is known, and the way out.
    """
    found = format_of(head)
    if found is None:
        expected = f"expected one of {', '.join(FORMATS)}"
        lower = head.lstrip().lower()
        named = next((one.format for one in _NOT_READ if head.startswith(one.start, one.place)), None)
        named = named or next((one.format for one in _NOT_READ if lower.startswith(one.start.lower(), one.place)), None)
        what = f"is no picture of a known format ({named})" if named else "is no picture of a known format"
        raise UnknownFormatError(f"{what}; {expected}: save it as one of them" if named else f"{what}; {expected}")
    if found == HEIF and not _reads_heif():
        raise UnknownFormatError(
            "is a HEIC picture, which nothing here decodes; pip install pillow-heif (extra heic), or save it as JPEG"
        )
    return found


@cache
def _reads_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True


def _box_end(head: bytes) -> int:
    return int.from_bytes(head[:4], "big")
