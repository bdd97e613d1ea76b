"""Averages of weights: one network from several that were trained from the same starting point."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from cascade.errors import CanonistiaError


def averaged(networks: Sequence[nn.Module], shares: Sequence[float], pictures: Iterable[torch.Tensor]) -> None:
    """Turn the first network into the mean of all, weighted by shares that sum up to 1, in place.

    Of two ends of a fine-tuning this is WiSE-FT (Wortsman et al., arXiv 2109.01903), of several fine-tunings from one
    starting point a model soup (arXiv 2203.05482). The statistics of batch norms are those of other weights: they are
    estimated anew on ``pictures``, batches of uint8 (N, size, size, 3).

    Raises
    ------
    CanonistiaError
        The networks are of different architectures.
    """
    states = [network.state_dict() for network in networks]
    shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in states]
    if any(other != shapes[0] for other in shapes):
        raise CanonistiaError("networks of different architectures cannot be averaged; give runs of one backbone")
    mean = {
        name: sum(share * state[name].double() for share, state in zip(shares, states, strict=True)).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
    networks[0].load_state_dict(mean)
    with torch.no_grad():
        update_bn(pictures, networks[0])
    networks[0].eval()
