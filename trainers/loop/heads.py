"""Linear heads on features in memory, trained without a run: nothing is recorded, and nothing is resumed."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from trainers.distributed.process_context import ProcessContext
from trainers.features.negatives import example_weights
from trainers.loop.fit import TensorBatches
from trainers.loop.losses import Loss, multiclass_loss
from trainers.loop.step import Stepper
from trainers.loop.training import one_thread
from trainers.recipe import Recipe


def main_head(features: torch.Tensor, targets: np.ndarray, weights: np.ndarray, recipe: Recipe) -> nn.Linear:
    """Return a head with K outputs, trained by a main model's recipe on features (N, D), classes and weights (N,)."""
    classes = int(targets.max()) + 1
    loss = multiclass_loss(recipe.loss, recipe.label_smoothing, classes)
    return _trained(TensorBatches(features, targets, recipe.batch_size, weights, recipe.seed), classes, recipe, loss)


def submodel_heads(
    features: torch.Tensor,
    targets: np.ndarray,
    weights: np.ndarray,
    out_of_fold: np.ndarray,
    policy: str,
    recipe: Recipe,
) -> nn.Linear:
    """Return the binary heads of all K classes as one layer, trained side by side by a submodel's recipe.

    Parameters
    ----------
    features
        What the heads read, (N, D).
    targets, weights
        Class indices and weights of the pictures, (N,).
    out_of_fold
        Probabilities (N, K) of a main model, by which the ``policy`` weighs negatives
        (see :func:`trainers.features.negatives.example_weights`).
    """
    classes = out_of_fold.shape[1]
    each = np.stack(
        [example_weights(policy, targets, label, out_of_fold, weights) for label in range(classes)], axis=1
    )  # (N, K)
    is_class = targets[:, None] == np.arange(classes)  # (N, K)
    asked = np.stack([is_class, each], axis=2).astype(np.float32)  # (N, K, 2)
    batches = TensorBatches(features, asked, recipe.batch_size, seed=recipe.seed)
    # A gradient's norm over all heads says nothing about one of them.
    return _trained(batches, classes, replace(recipe, clip=0.0), _side_by_side)


def _side_by_side(logits: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Return the sum of the weighted losses of all heads, (N,): the gradient of each is as if it were alone."""
    losses = functional.binary_cross_entropy_with_logits(logits, asked[..., 0], weight=asked[..., 1], reduction="none")
    return losses.sum(dim=1)


def _trained(batches: TensorBatches, outputs: int, recipe: Recipe, loss: Loss) -> nn.Linear:
    # Lower precision does not make a linear layer faster; features are not mixed.
    plain = replace(recipe, precision="fp32", mix="none")
    with torch.random.fork_rng(devices=()), one_thread():
        torch.manual_seed(recipe.seed)
        network = nn.Sequential(nn.Dropout(recipe.dropout), nn.Linear(batches.inputs.shape[1], outputs))
        groups = [{"params": list(network.parameters()), "lr": recipe.lr}]
        stepper = Stepper(network, groups, plain, loss, ProcessContext("cpu"), recipe.epochs * len(batches))
        for epoch in range(1, recipe.epochs + 1):
            network.train()
            for batch in batches.epoch(epoch):
                stepper.step(batch, epoch)
        head = nn.Linear(batches.inputs.shape[1], outputs)
        head.load_state_dict(stepper.result.get_submodule("1").state_dict())
    return head.eval()
