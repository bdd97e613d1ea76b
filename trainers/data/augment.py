"""Augmentation: random changes from picture to picture, before the one preprocessing."""

from collections.abc import Callable

from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from cascade.errors import CanonistiaError
from trainers.recipe import AUGMENTATIONS

Augmentation = Callable[[Image.Image], Image.Image]


def augmentation(name: str, size: int) -> Augmentation | None:
    """Return a policy by name, for an image size in pixels; None for ``none``.

    ``light`` mirrors and crops at random (60 to 100% of the area); ``strong`` crops tighter, rotates by up to 10
    degrees, changes brightness and contrast, and applies one random operation (TrivialAugment, arXiv 2103.10158).

    Raises
    ------
    CanonistiaError
        The name is unknown.
    """
    bicubic, bilinear = InterpolationMode.BICUBIC, InterpolationMode.BILINEAR
    if name == "none":
        return None
    if name == "light":
        crop = v2.RandomResizedCrop(size, scale=(0.6, 1.0), ratio=(0.75, 1.6), interpolation=bicubic)
        return v2.Compose([v2.RandomHorizontalFlip(), crop])
    if name == "strong":
        crop = v2.RandomResizedCrop(size, scale=(0.4, 1.0), ratio=(0.75, 1.6), interpolation=bicubic)
        turn = v2.RandomRotation(10, interpolation=bilinear)
        jitter = v2.ColorJitter(brightness=0.3, contrast=0.3)
        return v2.Compose([v2.RandomHorizontalFlip(), turn, crop, jitter, v2.TrivialAugmentWide()])
    raise CanonistiaError(f"unknown augmentation '{name}'; expected one of {', '.join(AUGMENTATIONS)}")
