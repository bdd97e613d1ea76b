"""The settings of a training, as one value that is passed down, stored in the run and sent to the tracker."""

from dataclasses import asdict, dataclass
from typing import Any

LOSSES = ("cross_entropy", "top2")
AUGMENTATIONS = ("none", "light", "strong", "trivial", "augmix", "robust", "mild")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
OPTIMIZERS = ("adamw", "sgd")
SAMPLERS = ("shuffled", "balanced", "sources")
CACHES = ("none", "memory", "disk")
TRACKERS = ("auto", "online", "offline", "none")
MIXES = ("none", "mixup", "cutmix", "both")
POLICIES = ("all", "siblings", "weighted", "hard")  # of negatives, for submodels
DEFAULT_POLICY = "weighted"
COMPOSITIONS = ("none", "presence")  # what submodels learn from pictures composed of two
DEFAULT_COMPOSITION = "none"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The command line's options have these names and defaults (see trainers.options)."""

    epochs: int = 40
    batch_size: int = 32
    lr: float = 1e-3  # of the head
    backbone_lr: float = 2e-4  # of unfrozen stages
    optimizer: str = "adamw"
    weight_decay: float = 0.02
    warmup: float = 0.1  # fraction of steps for linear warm-up
    label_smoothing: float = 0.0
    dropout: float = 0.2
    ema: float = 0.98  # decay per step of the averaged weights; 0 turns averaging off
    accumulate: int = 1  # parts of a batch, computed one after another
    clip: float = 5.0  # maximum gradient norm; 0 turns clipping off
    patience: int = 0  # of early stopping, in epochs; 0 turns it off
    sampler: str = "shuffled"
    unfreeze: str = "head"
    layer_decay: float = 1.0  # factor on the rate from each backbone stage to the one before it
    augment: str = "light"
    mix: str = "none"
    early_size: int = 0  # image size of all but the last epochs; 0 keeps the served size throughout
    final_epochs: int = 2  # at the served image size, with early_size
    loss: str = "cross_entropy"
    teacher_weight: float = 0.5  # share of the loss that follows the teachers, where there are any
    precision: str = "auto"
    device: str = "auto"
    workers: int = 0
    cache: str = "none"
    seed: int = 0
    tracker: str = "auto"

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)


MAIN_DEFAULTS = Recipe()
SUB_DEFAULTS = Recipe(epochs=30, weight_decay=0.05)
