"""Cost: multiply-adds of one picture's pass through a network; budgets are counted in passes of the main model."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainers.networks.classifier import Classifier
from trainers.runs.submodels import Submodels


def multiply_adds(network: nn.Module, size: int) -> int:
    """Return the multiply-adds per picture of ``size`` by ``size`` pixels: convolutions and matrix products only."""
    pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(pixels)
    return counter.get_total_flops() // 2


def second_stage_cost(main: Classifier, main_size: int, submodels: Submodels, candidates: int) -> float:
    """Return the cost of the second stage for one routed picture, in passes of the main model.

    The main model's features, which heads may read, cost nothing: its own pass has computed them.
    """
    size = submodels.common.preprocess.size
    if submodels.trunk:
        asked = multiply_adds(submodels.trunk, size)
    else:
        asked = candidates * multiply_adds(submodels.networks[0], size)
    return asked / multiply_adds(main, main_size)
