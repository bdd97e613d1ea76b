"""Fuzzing of the decoder: mutated pictures of every format, for some minutes; anything but a picture error is a fault.

    python -m benchmarks.hostile.fuzz --minutes 5

Prints how many decodes were made, how many gave a picture, and each fault with the seed that repeats it.
"""

import argparse
import io
import struct
import time
import traceback
import warnings
from collections import Counter

import numpy as np
from PIL import Image

from cascade.errors import PictureError
from cascade.images.decoding import decode
from cascade.images.preprocess import PreprocessSpec, preprocess

SPEC = PreprocessSpec(size=32, colour="grey")
PARAMETERS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("JPEG", "RGB", {}),
    ("JPEG", "L", {"progressive": True}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {}),
    ("PNG", "I;16", {}),
    ("PNG", "1", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGB", {}),
    ("GIF", "P", {}),
    ("BMP", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "L", {"compression": "tiff_deflate"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "I;16", {}),
    ("PPM", "RGB", {}),
    ("PPM", "L", {}),
    ("AVIF", "RGB", {}),
)


def seeds() -> list[bytes]:
    """Return a small picture of every format and mode, with metadata where the format has them."""
    random = np.random.default_rng(0)
    pixels = Image.fromarray(random.integers(0, 256, (24, 31, 3)).astype(np.uint8))
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    files = []
    for kind, mode, options in PARAMETERS:
        picture = Image.fromarray(np.asarray(pixels.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else None
        file = io.BytesIO()
        more = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "AVIF") else {}
        (picture or pixels.convert(mode)).save(file, kind, **options, **more)
        files.append(file.getvalue())
    files.append(b"P6 31 24 100\n" + bytes(31 * 24 * 3))
    files.append(b"P2 4 4 15\n" + b"1 2 3 4 " * 4)
    return files


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Return a file with some bytes changed, cut out, repeated or put in."""
    content = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        if not content:
            break
        place = int(random.integers(len(content)))
        length = int(random.integers(1, 9))
        match int(random.integers(6)):
            case 0:
                content[place] = int(random.integers(256))
            case 1:
                content[place] ^= 1 << int(random.integers(8))
            case 2:
                del content[place : place + length]
            case 3:
                content[place:place] = random.integers(0, 256, length).astype(np.uint8).tobytes()
            case 4:
                content[place : place + length] = [(0, 255, 127, 128)[int(random.integers(4))]] * length
            case 5:
                content = content[:place]
    return bytes(content)


def main() -> None:
    """Decode mutated pictures until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    files = seeds()
    outcomes: Counter[str] = Counter()
    ends = time.monotonic() + 60 * options.minutes
    number = options.seed
    while time.monotonic() < ends:
        random = np.random.default_rng(number)
        data = mutated(files[number % len(files)], random)
        try:
            preprocess(decode(data, least_size=None if number % 2 else 16), SPEC)
            outcomes["pictures"] += 1
        except PictureError:
            outcomes["picture errors"] += 1
        except Exception:  # noqa: BLE001  # the fault that is looked for
            outcomes["FAULTS"] += 1
            print(f"seed {number}\n{traceback.format_exc()}")
        number += 1
    print(f"{number - options.seed:,} decodes: " + ", ".join(f"{count:,} {name}" for name, count in outcomes.items()))


if __name__ == "__main__":
    main()
