"""Pictures as tensors: the torch data set over files that training and its evaluation read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cascade.errors import CanonistiaError, PictureError
from cascade.picture import decode
from cascade.preprocess import PreprocessSpec, least_side, preprocess
from trainers.augment import Augmentation
from trainers.progress import track

Example = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class PictureDataset(Dataset[Example]):
    """Pixels uint8 (size, size, 3), target and weight of each picture, decoded and preprocessed as in serving."""

    def __init__(
        self,
        paths: Sequence[Path],
        targets: np.ndarray,
        spec: PreprocessSpec,
        augment: Augmentation | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.paths = list(paths)
        self.targets = torch.from_numpy(targets)
        self.weights = torch.ones(len(self.paths)) if weights is None else torch.from_numpy(weights).float()
        self.spec = spec
        self.augment = augment

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # Random crops want every pixel; what is only evaluated is decoded as in serving.
        picture = _decoded(self.paths[index], None if self.augment else least_side(self.spec))
        if self.augment:
            picture = self.augment(picture)
        pixels = torch.from_numpy(preprocess(picture, self.spec).copy())
        return pixels, self.targets[index], self.weights[index]


def loader(data: Dataset[Example], batch_size: int, shuffle: bool, seed: int, workers: int) -> DataLoader[Example]:
    """Return a loader whose order, and the random state of its workers, follow from the seed."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(data, batch_size, shuffle=shuffle, generator=generator, num_workers=workers)


def all_grey(paths: Sequence[Path]) -> bool:
    """Return whether every picture is grey: stored so, or with equal channels.

    Every picture is decoded, so that one that cannot be read is told before the training starts.

    Raises
    ------
    CanonistiaError
        A picture cannot be read.
    """
    colourful = 0
    for path in track(paths, "checking pictures"):
        colourful += not _is_grey(_decoded(path))
    return colourful == 0


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode == "L":
        return True
    red, green, blue = picture.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def _decoded(path: Path, side: int | None = None) -> Image.Image:
    try:
        return decode(path, least_side=side)
    except PictureError as error:
        raise CanonistiaError(f"{path}: {error}; remove it ('canonistia check-data' lists all such files)") from error
