"""The largest batch that fits a GPU's memory, found by trying."""

from collections.abc import Callable

import torch

from cascade.errors import CanonistiaError
from trainers.networks.classifier import Classifier

_FIRST, _MOST = 8, 4096
_USED = 0.8  # fraction of the largest batch that fits: validation and other pictures need memory, too


def largest_batch(fits: Callable[[int], bool], most: int = _MOST) -> int:
    """Return a multiple of 8, a fifth below the largest batch that fits; doubling, then bisection finds it.

    Raises
    ------
    CanonistiaError
        Not even a batch of 8 fits.
    """
    if not fits(_FIRST):
        raise CanonistiaError(f"the GPU's memory does not hold a batch of {_FIRST}; give --batch-size, or lower --size")
    good, bad = _FIRST, most + 8
    while bad - good > 8:
        tried = min(2 * good, (good + bad) // 2) // 8 * 8
        good, bad = (tried, bad) if fits(tried) else (good, tried)
    return max(_FIRST, int(good * _USED) // 8 * 8)


def fitting_batch(network: Classifier, size: int, device: str) -> int:
    """Return how many pictures of an image size a step of fine-tuning the whole network may have.

    Raises
    ------
    CanonistiaError
        The device is no GPU, or not even a small batch fits.
    """
    if not device.startswith("cuda"):
        raise CanonistiaError(
            f"--batch-size 0 fits the batch to a GPU's memory, and the device is {device}; give a number"
        )
    network.to(device).train()

    def fits(count: int) -> bool:
        try:
            network(torch.zeros(count, size, size, 3, dtype=torch.uint8, device=device)).sum().backward()
        except torch.OutOfMemoryError:
            return False
        finally:
            network.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        return True

    before = {
        name: value.clone() for name, value in network.state_dict().items()
    }  # the trials change batch-norm statistics
    try:
        return largest_batch(fits)
    finally:
        network.load_state_dict(before)
