"""Make out-of-distribution pictures for a scene model, from data that comes with scikit-image and scikit-learn.

    python -m benchmarks.out_of_distribution DIR
    canonistia evaluate photos/validation --outside DIR

There are fifty grey pictures of 300 by 250 pixels of each of six kinds: textures, text, faces, noise, digits, things.
"""

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits

SIZE = (300, 250)
COUNT = 50

Maker = Callable[[np.random.Generator], Image.Image]


def main() -> None:
    """Write one folder per kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    for kind, make in MAKERS.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(COUNT):
            rng = np.random.default_rng([number, *kind.encode()])
            make(rng).convert("L").resize(SIZE, Image.Resampling.BICUBIC).save(folder / kind / f"{number:03d}.png")
    print(f"{COUNT * len(MAKERS)} pictures of {', '.join(MAKERS)} in {folder}")


def texture(rng: np.random.Generator) -> Image.Image:
    """Return a crop of brick, grass, gravel or cells, rotated at random."""
    name = rng.choice(["brick", "grass", "gravel", "cell", "immunohistochemistry"])
    return _crop(rng, Image.fromarray(getattr(skimage.data, name)()), 0.3, 0.8).rotate(90 * int(rng.integers(4)))


def text(rng: np.random.Generator) -> Image.Image:
    """Return a crop of a scanned page, or a page of random words."""
    if rng.random() < 0.4:
        return _crop(rng, Image.fromarray(getattr(skimage.data, rng.choice(["page", "text"]))()), 0.4, 0.9)
    size = int(rng.integers(12, 40))
    lines = textwrap.wrap(" ".join(rng.choice(np.array(_TEXT.split()), 120)), width=int(560 / size))
    paper, ink = int(rng.integers(170, 256)), int(rng.integers(0, 90))
    page = Image.new("L", SIZE, paper)
    ImageDraw.Draw(page).multiline_text((8, 8), "\n".join(lines), ink, ImageFont.load_default(size))
    return page


def face(rng: np.random.Generator) -> Image.Image:
    """Return a face: a photo (Labeled Faces in the Wild, 25 pixels wide), or a simple drawing."""
    if rng.random() < 0.5:
        return Image.fromarray((255 * skimage.data.lfw_subset()[int(rng.integers(100))]).astype(np.uint8))
    picture = Image.new("L", SIZE, int(rng.integers(150, 256)))
    pen = ImageDraw.Draw(picture)
    x, y = 150 + rng.normal(0, 10), 125 + rng.normal(0, 8)
    wide, tall = rng.uniform(55, 85), rng.uniform(75, 105)
    ink, width = int(rng.integers(0, 80)), int(rng.integers(2, 6))
    pen.ellipse((x - wide, y - tall, x + wide, y + tall), fill=int(rng.integers(120, 230)), outline=ink, width=width)
    for sign in (-1, 1):
        eye = x + sign * wide * 0.4
        pen.ellipse((eye - 9, y - 30, eye + 9, y - 18), fill=255, outline=ink, width=width)
        pen.ellipse((eye - 3, y - 27, eye + 3, y - 21), fill=ink)
        pen.arc((eye - 16, y - 48, eye + 16, y - 28), 200, 340, fill=ink, width=width)
    pen.line((x, y - 12, x - 8, y + 18, x + 4, y + 20), fill=ink, width=width)
    pen.arc((x - 28, y + 18, x + 28, y + 52), *((20, 160) if rng.random() < 0.7 else (200, 340)), fill=ink, width=width)
    return picture


def noise(rng: np.random.Generator) -> Image.Image:
    """Return noise with a random grain, from single pixels to soft clouds."""
    grain = int(2 ** rng.uniform(0, 6))
    cells = rng.normal(128, rng.uniform(20, 70), (max(2, SIZE[1] // grain), max(2, SIZE[0] // grain)))
    return Image.fromarray(np.clip(cells, 0, 255).astype(np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)


def digit(rng: np.random.Generator) -> Image.Image:
    """Return an enlarged handwritten digit of eight by eight pixels, dark on light or light on dark."""
    pixels = np.pad(_DIGITS[int(rng.integers(len(_DIGITS)))] * (255 / 16), 1)  # (10, 10)
    picture = Image.fromarray((255 - pixels if rng.random() < 0.5 else pixels).astype(np.uint8))
    return picture.resize(SIZE, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(rng.uniform(0, 4)))


def thing(rng: np.random.Generator) -> Image.Image:
    """Return a crop of a picture of one thing: an astronaut, a cat, coffee, coins, a retina, the moon, a clock."""
    names = ("astronaut", "chelsea", "coffee", "coins", "retina", "moon", "clock", "horse", "hubble_deep_field")
    pixels = getattr(skimage.data, rng.choice(names))()
    picture = Image.fromarray((255 * pixels).astype(np.uint8) if pixels.dtype == bool else pixels)
    return _crop(rng, picture, 0.6, 1.0)


def _crop(rng: np.random.Generator, picture: Image.Image, low: float, high: float) -> Image.Image:
    share = rng.uniform(low, high)
    width, height = (round(share * length) for length in picture.size)
    left, top = (
        int(rng.integers(0, whole - part + 1)) for whole, part in zip(picture.size, (width, height), strict=True)
    )
    return picture.convert("L").crop((left, top, left + width, top + height))


# The words on pages of text; other words would make other pictures than those that published figures are about.
_TEXT = """
Make pictures that show none of a scene model's classes, from data that installs with scikit-image and scikit-learn.
python benchmarks/outside.py DIR canonistia evaluate photos/validation --outside DIR Six kinds, fifty pictures each,
grey, 300 by 250 pixels: textures, text, faces, noise, digits, things. Return a piece of brick, grass or gravel, or
of skin cells, turned at random.
"""
_DIGITS = load_digits().images
MAKERS: dict[str, Maker] = {
    "textures": texture,
    "text": text,
    "faces": face,
    "noise": noise,
    "digits": digit,
    "things": thing,
}


if __name__ == "__main__":
    main()
