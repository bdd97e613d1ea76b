"""Pictures as tensors: batches of files, decoded, augmented and preprocessed, the same for every number of workers."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cascade.errors import CanonistiaError, PictureError
from cascade.images.decoding import decode
from cascade.images.preprocess import PreprocessSpec, least_size, preprocess
from cascade.images.unreadable import decoded, unreadable
from cascade.progress import track
from trainers.data.augment import Augmentation
from trainers.data.decode_cache import Decoder
from trainers.data.sampling import in_order, share_of
from trainers.distributed.process_context import ProcessContext

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # inputs (N, ...), targets (N,), weights (N,)
Order = Callable[[int], list[np.ndarray]]
Key = tuple[int, float, int]  # index, factor on its weight, epoch


class PictureDataset(Dataset[Batch]):
    """Pixels uint8 (size, size, 3), target and weight of each picture, decoded and preprocessed as in serving.

    What the augmentation does to a picture depends on the seed, the epoch and the picture's index alone.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: np.ndarray,
        spec: PreprocessSpec,
        augment: Augmentation | None = None,
        weights: np.ndarray | None = None,
        seed: int = 0,
        decode: Decoder = decoded,
    ) -> None:
        self.paths = list(paths)
        self.targets = torch.from_numpy(targets)
        self.weights = torch.ones(len(self.paths)) if weights is None else torch.from_numpy(weights).float()
        self.spec = spec
        self.augment = augment
        self.seed = seed
        self.decode = decode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Key) -> Batch:
        index, factor, epoch = key
        # Random crops need every pixel; for evaluation a picture is decoded as in serving.
        picture = self.decode(self.paths[index], None if self.augment else least_size(self.spec))
        if self.augment:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]))
                picture = self.augment(picture)
        pixels = torch.from_numpy(preprocess(picture, self.spec).copy())
        return pixels, self.targets[index], self.weights[index] * factor


class PictureBatches:
    """Batches of pictures in the order of each epoch, decoded by worker processes; this process's share of each."""

    def __init__(
        self, data: PictureDataset, order: Order, workers: int = 0, process: ProcessContext | None = None
    ) -> None:
        self.data = data
        self.order = order
        self.workers = workers
        self.process = process or ProcessContext("cpu")
        self._length = len(order(1))

    def __len__(self) -> int:
        return self._length

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, beginning with step ``start``.

        Raises
        ------
        CanonistiaError
            A picture cannot be read, or there is too little shared memory for the worker processes.
        """
        shares = [share_of(indices, self.process.index, self.process.count) for indices in self.order(number)[start:]]
        keys = [[(int(index), share.factor, number) for index in share.indices] for share in shares]
        # The loader draws a seed from this generator, so that the training's random state does not change.
        generator = torch.Generator().manual_seed(number)
        pinned = self.process.device.startswith("cuda")
        batches = DataLoader(
            self.data, batch_sampler=keys, num_workers=self.workers, generator=generator, pin_memory=pinned
        )
        try:
            yield from batches
        except CanonistiaError as error:
            # The error of a worker process holds its whole traceback; the last line is the message.
            line = str(error.args[0]).strip().splitlines()[-1].removeprefix("cascade.errors.CanonistiaError: ")
            raise CanonistiaError(line) from error
        except RuntimeError as error:
            if "shared memory" not in str(error):  # PyTorch has no error of its own for this
                raise
            raise CanonistiaError(
                "the worker processes that decode pictures found too little shared memory in /dev/shm; give the "
                "container more (docker run --shm-size 2g), or use --workers 0"
            ) from error


def pictures_in_order(
    paths: Sequence[Path],
    targets: np.ndarray,
    spec: PreprocessSpec,
    batch_size: int,
    workers: int = 0,
    decode: Decoder = decoded,
) -> PictureBatches:
    """Return batches of unchanged pictures in their order, for evaluation."""
    return PictureBatches(
        PictureDataset(paths, targets, spec, decode=decode), lambda _: in_order(len(paths), batch_size), workers
    )


def all_grey(paths: Sequence[Path]) -> bool:
    """Return whether every picture is grey: stored so, or with equal channels.

    Every picture is decoded, so that those that cannot be read are reported before the training starts.

    Raises
    ------
    CanonistiaError
        Pictures cannot be read; it names all of them.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves the interpreter free
        found = list(track(pool.map(_grey_or_error, paths), "checking pictures", len(paths)))
    bad = [(path, one) for path, one in zip(paths, found, strict=True) if isinstance(one, PictureError)]
    if bad:
        raise unreadable(bad)
    return all(found)


def _grey_or_error(path: Path) -> bool | PictureError:
    try:
        return _is_grey(decode(path))
    except PictureError as error:
        return PictureError(str(error))  # without its traceback, which keeps the bytes in memory


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode == "L":
        return True
    red, green, blue = picture.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()
