"""Weights from files: read without running code, and loaded by name or by position."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cascade.errors import CanonistiaError

Weights = Mapping[str, torch.Tensor]

# Where pretrained weights are; "to install": in a Python package, "none": nowhere.
Availability = Literal["here", "to fetch", "to install", "none"]


def load_weights(
    network: nn.Module, weights: Weights, what: str, by_position: bool = False, but: tuple[str, ...] = ()
) -> None:
    """Load weights by name.

    Parameters
    ----------
    by_position
        Load them by their order where the names differ: another implementation named them.
    but
        Modules that keep their weights: the head, which may be for other classes.

    Raises
    ------
    CanonistiaError
        The names, the number of tensors or the shape of one differ.
    """

    def is_asked(key: str) -> bool:
        return not key.endswith("num_batches_tracked") and not any(key.startswith(f"{name}.") for name in but)

    shapes = network.state_dict()
    own = [key for key in shapes if is_asked(key)]
    given = [key for key in weights if is_asked(key)]
    if set(own) == set(given):
        given = own
    elif not by_position:
        stray = sorted(set(given) - set(own)) or sorted(set(own) - set(given))
        raise CanonistiaError(
            f"{what} are for another architecture: {len(given)} tensors, expected {len(own)}, and the names differ "
            f"({stray[0]}, for one)"
        )
    for target, source in zip(own, given, strict=False):
        if shapes[target].shape != weights[source].shape:
            raise CanonistiaError(
                f"{what} are for another architecture: {source} has shape {tuple(weights[source].shape)}, "
                f"expected {tuple(shapes[target].shape)} ({target})"
            )
    if len(own) != len(given):
        raise CanonistiaError(f"{what} are for another architecture: {len(given)} tensors, expected {len(own)}")
    pairs = zip(own, given, strict=True)
    network.load_state_dict({target: weights[source] for target, source in pairs}, strict=False)


def read_weights(path: Path) -> Weights:
    """Return the tensors of a safetensors file or of a PyTorch state dict, which is read without running code.

    Raises
    ------
    CanonistiaError
        The file is missing or of neither format.
    """
    if not path.is_file():
        raise CanonistiaError(f"weights file {path} does not exist; expected a safetensors or PyTorch state dict file")
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load reports a file that is no state dict with any of these, depending on its first bytes.
    except (SafetensorError, UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        raise CanonistiaError(f"{path} cannot be read as weights ({type(error).__name__}: {error})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CanonistiaError(f"{path} holds no state dict; expected a mapping of names to tensors")
    return state
