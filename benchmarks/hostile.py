"""Peak memory of decoding small hostile files: a seeded search over formats, modes, tile sizes and aspect ratios.

    python -m benchmarks.hostile --tries 200 FILE…

Every file has less than 100 KB. Each is classified in a process of its own, whose peak is compared with that of the
same process before the picture came. Files named on the command line are measured first.
"""

import argparse
import io
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

LARGEST = 100_000  # bytes of a file
Image.MAX_IMAGE_PIXELS = None
PROBE = """
import sys, resource
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
try:
    engine.classify([open(sys.argv[1], "rb").read()])
except PictureError as error:
    said = str(error)
print((peak() - before) / 1024, said, sep="\\t")
"""


def peak_of(path: Path) -> tuple[float, str]:
    """Return the MB above idle that classifying a file takes at its peak, and what is said of it."""
    done = subprocess.run([sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, check=True)
    megabytes, _, said = done.stdout.strip().partition("\t")
    return float(megabytes), said


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


def main() -> None:
    """Measure the named files, and then the worst of a search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Write the worst file there.")
    options = parser.parse_args()
    found: list[tuple[float, str, str, bytes]] = []
    for path in options.files:
        megabytes, said = peak_of(path)
        found.append((megabytes, str(path), said, b""))
        print(f"{megabytes:8.1f} MB  {path}  {said}")
    random = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.tries):
            try:
                name, data = candidate(random)
            except (RuntimeError, ValueError, OSError):  # a size that this encoder does not write
                continue
            if len(data) >= LARGEST:
                continue
            path = Path(folder, "candidate")
            path.write_bytes(data)
            megabytes, said = peak_of(path)
            found.append((megabytes, name, said, data))
    found.sort(key=lambda one: -one[0])
    print(f"\n{len(found)} files of less than {LARGEST:,} bytes; the worst:")
    for megabytes, name, said, _ in found[:10]:
        print(f"{megabytes:8.1f} MB  {name}  {said}")
    if options.keep and found[0][3]:
        options.keep.write_bytes(found[0][3])


if __name__ == "__main__":
    main()
