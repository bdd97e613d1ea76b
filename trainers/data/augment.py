"""Augmentation: random changes from picture to picture, before the one preprocessing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from cascade.errors import CanonistiaError
from cascade.images.degradations import Degrade, brightness, grey, jpeg, low_resolution, rotation
from trainers.recipe import AUGMENTATIONS

Augmentation = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Sometimes:
    """Degrades a share of the pictures, by a value drawn evenly between two; chance follows PyTorch's seed."""

    degrade: Degrade
    share: float
    least: float
    most: float

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Return the picture, degraded or not."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        if rng.random() >= self.share:
            return picture
        return self.degrade(picture, rng.uniform(self.least, self.most), rng)


def augmentation(name: str, size: int) -> Augmentation | None:
    """Return a policy by name, for an image size in pixels; None for ``none``.

    Every policy mirrors and crops at random. ``light`` does nothing else (60 to 100% of the area). ``strong`` crops
    tighter, rotates by up to 10 degrees, changes brightness and contrast, and applies one random operation
    (TrivialAugment, arXiv 2103.10158), which ``trivial`` does alone; ``augmix`` blends chains of operations (AugMix,
    arXiv 1912.02781). ``robust`` is for pictures from other cameras and sites: it makes them small, compressed,
    turned, wide or tall, darker or lighter, less colourful or grey. It uses functions of the stress test; it has no
    noise, no motion blur, no haze and no gamma, so that the test's figures under these are of kinds never trained on.
    ``mild`` does less of it to fewer pictures, and crops as ``light`` does, but makes as many of them grey.

    Raises
    ------
    CanonistiaError
        The name is unknown.
    """
    bicubic, bilinear = InterpolationMode.BICUBIC, InterpolationMode.BILINEAR
    mirror = v2.RandomHorizontalFlip()

    def crop(least: float, ratio: tuple[float, float] = (0.75, 1.6)) -> v2.RandomResizedCrop:
        return v2.RandomResizedCrop(size, scale=(least, 1.0), ratio=ratio, interpolation=bicubic)

    turn, jitter = v2.RandomRotation(10, interpolation=bilinear), v2.ColorJitter(brightness=0.3, contrast=0.3)
    half_grey = (Sometimes(grey, 0.3, 0, 1), Sometimes(grey, 0.5, 0, 0))
    policies: dict[str, tuple[Augmentation, ...]] = {
        "light": (mirror, crop(0.6)),
        "strong": (mirror, turn, crop(0.4), jitter, v2.TrivialAugmentWide()),
        "trivial": (mirror, crop(0.6), v2.TrivialAugmentWide()),
        "augmix": (mirror, crop(0.6), v2.AugMix()),
        "robust": (
            mirror,
            Sometimes(low_resolution, 0.5, 48, 200),
            Sometimes(jpeg, 0.4, 10, 80),
            Sometimes(rotation, 0.3, 0, 20),
            crop(0.5, (0.35, 2.8)),
            *half_grey,
            Sometimes(brightness, 0.5, 0, 0.6),
        ),
        "mild": (
            mirror,
            Sometimes(low_resolution, 0.25, 64, 200),
            Sometimes(jpeg, 0.2, 15, 80),
            Sometimes(rotation, 0.15, 0, 15),
            crop(0.6),
            *half_grey,
            Sometimes(brightness, 0.3, 0, 0.4),
        ),
    }
    if name == "none":
        return None
    if name not in policies:
        raise CanonistiaError(f"unknown augmentation '{name}'; expected one of {', '.join(AUGMENTATIONS)}")
    return v2.Compose(policies[name])
