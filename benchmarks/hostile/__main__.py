"""Peak memory of decoding small hostile files: a seeded search over formats, modes, tile sizes and aspect ratios.

    python -m benchmarks.hostile --tries 200 [--keep DIR] [FILE …]

Every file has less than 100 KB. Each is classified in a process of its own, whose peak is compared with that of the
same process before the picture came. Files named on the command line are measured first.
"""

import argparse
import hashlib
import io
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LARGEST = 100_000  # bytes of a file
Image.MAX_IMAGE_PIXELS = None
PROBE = """
import sys, time
from cascade.inference.loading import load_engine
from cascade.errors import PictureError
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1])
engine = load_engine("scene15", 1)
engine.self_test()
before = peak()
said = ""
started = time.perf_counter()
try:
    engine.classify([open(sys.argv[1], "rb").read()])
except PictureError as error:
    said = str(error)
print((peak() - before) / 1024, time.perf_counter() - started, said, sep="\\t")
"""


@dataclass(frozen=True)
class Hostile:
    """A file, and what classifying it takes in a process of its own."""

    name: str
    data: bytes
    megabytes: float  # above idle, at the peak
    seconds: float
    said: str  # of a file that is refused

    def __str__(self) -> str:
        return f"{self.megabytes:8.1f} MB {self.seconds:6.2f} s  {self.name}  {self.said}"


def measured(name: str, data: bytes) -> Hostile:
    """Classify a file in a process of its own."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        command = [sys.executable, "-c", PROBE, file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    megabytes, seconds, said = done.stdout.rstrip("\n").split("\t", 2)
    return Hostile(name, data, float(megabytes), float(seconds), said)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def tiled(width: int, height: int, tile: tuple[int, int]) -> bytes:
    """Return a grey TIFF with one compressed tile, whatever its declared size."""
    data = zlib.compress(bytes(min(tile[0] * tile[1], 50_000_000)))
    data += b"\0" * (len(data) % 2)
    tags = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(322, tile[0]), (323, tile[1]), (324, 8), (325, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def candidate(random: np.random.Generator) -> tuple[str, bytes]:
    """Return a file of a random format, mode and shape, and what it is."""
    pixels = float(random.choice([4e6, 12e6, 15.9e6, 16e6, 40e6, 110e6]))
    ratio = float(random.choice([1, 1, 2, 10, 49, 99]))
    width, height = max(1, int((pixels * ratio) ** 0.5)), max(1, int((pixels / ratio) ** 0.5))
    if random.integers(2):
        width, height = height, width
    kind, modes, options = [
        ("PNG", ["L", "RGB", "RGBA", "P", "1", "I;16", "LA"], {"compress_level": 9}),
        ("JPEG", ["L", "RGB", "CMYK"], {"quality": 1, "progressive": bool(random.integers(2))}),
        ("WEBP", ["RGB", "RGBA"], {"lossless": bool(random.integers(2)), "method": 0}),
        ("AVIF", ["RGB", "RGBA"], {"speed": 10}),
        ("GIF", ["P", "L"], {}),
        ("TIFF", ["L", "RGB", "RGBA", "CMYK", "I;16", "1"], {"compression": "tiff_deflate"}),
        ("TILE", ["L"], {}),
    ][int(random.integers(7))]
    mode = str(random.choice(modes))
    if kind == "TILE":
        tile = (16 * max(1, width // 16), 16 * max(1, height // 16))
        return f"TIFF tile {tile[0]}x{tile[1]} of 16x16", tiled(16, 16, tile)
    if kind == "WEBP":
        width, height = min(width, 16383), min(height, 16383)
    turned = {"exif": b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)}
    more = turned if kind in ("PNG", "JPEG", "WEBP") and random.integers(2) else {}
    name = f"{kind} {mode} {width}x{height} {options} {'turned' if more else ''}"
    return name, encoded(Image.new(mode, (width, height)), kind, **options, **more)


def search(tries: int, seed: int) -> Iterator[Hostile]:
    """Yield small files of a seeded search, measured."""
    random = np.random.default_rng(seed)
    for _ in range(tries):
        try:
            name, data = candidate(random)
        except (RuntimeError, ValueError, OSError, OverflowError):  # a size that this encoder does not write
            continue
        if len(data) < LARGEST:
            yield measured(name, data)


def main() -> None:
    """Measure the named files, and then the worst of a search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Write the heaviest and the slowest files into this folder.")
    options = parser.parse_args()
    for path in options.files:
        print(measured(str(path), path.read_bytes()))
    found = list(search(options.tries, options.seed))
    heaviest = sorted(found, key=lambda one: -one.megabytes)[:10]
    slowest = sorted(found, key=lambda one: -one.seconds)[:5]
    print(f"\n{len(found)} files of less than {LARGEST:,} bytes; the heaviest, and the slowest:")
    print(*heaviest, "", *slowest, sep="\n")
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        for one in {*heaviest, *slowest}:
            (options.keep / hashlib.sha256(one.data).hexdigest()[:12]).write_bytes(one.data)


if __name__ == "__main__":
    main()
