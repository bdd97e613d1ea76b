"""Pictures per second in fine-tuning, compared with a bare loop, the loop of timm's train script, and fastai.

    python -m benchmarks.training [fp32] [bf16] [fp16]

All loops train the same network on the same batch in memory, in turns. fastai is measured if it can be imported: it
needs a separate environment (pip install fastai beside this project's train extra).
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from trainers.data.loader import Batch
from trainers.distributed.process_context import ProcessContext
from trainers.loop.fit import Hooks, Task, TrainingSetup, fit
from trainers.loop.losses import multiclass_loss
from trainers.loop.scores import multiclass_scores
from trainers.loop.training import rate_groups
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import Recipe

SIZE, BATCH, STEPS, ROUNDS, CLASSES = 128, 32, 12, 5, 15
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"


class OneBatch:
    """One batch in memory, repeated for every step."""

    def __init__(self, steps: int) -> None:
        torch.manual_seed(0)
        pixels = torch.randint(0, 256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8)
        self.batch = (pixels.to(DEVICE), torch.randint(0, CLASSES, (BATCH,)).to(DEVICE), torch.ones(BATCH).to(DEVICE))
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batch for every step."""
        for _ in range(start, self.steps):
            yield self.batch


def network() -> Classifier:
    """Return the network that all loops train."""
    built = build_classifier(NetworkConfig("efficientnet_lite0", size=SIZE, pretrained=False), CLASSES)
    return built.to(DEVICE).to(memory_format=torch.channels_last)


def bare(precision: str) -> float:
    """Return the seconds of an epoch: forward, backward, step."""
    trained = network().train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3)
    pixels, targets, _ = OneBatch(1).batch
    types = {"bf16": torch.bfloat16}
    around = torch.autocast(DEVICE, types[precision]) if precision in types else nullcontext()

    def step() -> None:
        with around:
            logits = trained(pixels)
        nn.functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    return seconds(lambda: [step() for _ in range(STEPS)])


def ours(precision: str) -> float:
    """Return the seconds of an epoch of this project's loop, as it reports them."""
    trained = network()
    recipe = Recipe(epochs=2, batch_size=BATCH, unfreeze="all", precision=precision)
    task = Task(multiclass_loss("cross_entropy", 0.0, CLASSES), multiclass_scores, "top1")
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            trained,
            rate_groups(trained, recipe),
            OneBatch(STEPS),
            OneBatch(1),
            TrainingSetup(recipe, task, ProcessContext(DEVICE), Path(folder)),
            Hooks(lambda _: trained.train(), lambda row, _: rows.append(row)),
        )
    return rows[-1]["seconds"]


def timm_loop(precision: str) -> float:
    """Return the seconds of an epoch with the steps of timm's train script.

    The script is not part of the timm package. This loop puts the same parts together in the same order, with this
    project's clipping and averaging.
    """
    from timm.optim import create_optimizer_v2
    from timm.utils import ModelEmaV3, NativeScaler, dispatch_clip_grad

    trained = network().train()
    optimizer = create_optimizer_v2(trained, "adamw", lr=1e-3, weight_decay=0.02)
    average = ModelEmaV3(trained, decay=0.98)
    criterion = nn.CrossEntropyLoss()
    scaler = NativeScaler(device=DEVICE) if precision == "fp16" else None
    pixels, targets, _ = OneBatch(1).batch
    kinds = {"bf16": torch.bfloat16}
    around = torch.autocast(DEVICE, kinds[precision]) if precision in kinds else nullcontext()

    def step(number: int) -> None:
        with around:
            loss = criterion(trained(pixels).float(), targets)
        if scaler:
            scaler(loss, optimizer, clip_grad=5.0, parameters=trained.parameters())
        else:
            loss.backward()
            dispatch_clip_grad(trained.parameters(), 5.0)
            optimizer.step()
        optimizer.zero_grad()
        average.update(trained, step=number)
        loss.item()

    step(0)
    return seconds(lambda: [step(number) for number in range(STEPS)])


def fastai_loop(precision: str) -> float:
    """Return the seconds of an epoch of fastai's Learner on the same batch in memory."""
    import fastai.callback.fp16
    import fastai.callback.progress  # noqa: F401  adds no_bar
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner

    trained = network()
    batch = OneBatch(STEPS)

    class Loader(list):
        """A list of batches with a device, as fastai expects it."""

        device, bs = torch.device(DEVICE), BATCH

    batches = Loader([(batch.batch[0], batch.batch[1])] * STEPS)
    taken: list[float] = []

    class Clock(Callback):
        """Times the training part of each epoch."""

        def before_train(self) -> None:
            self.started = time.perf_counter()

        def after_train(self) -> None:
            taken.append(time.perf_counter() - self.started)

    learner = Learner(DataLoaders(batches, batches[:1]), trained, loss_func=nn.CrossEntropyLoss(), cbs=[Clock()])
    if precision == "bf16":
        learner.to_bf16()
    with learner.no_bar(), learner.no_logging():
        learner.fit(2, 1e-3)
    return taken[-1]


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    started = time.perf_counter()
    work()
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(precision: str) -> None:
    """Run all loops in turns; print each loop's median pictures per second."""
    loops: dict[str, Callable[[str], float]] = {"bare loop": bare, "canonistia": ours, "timm": timm_loop}
    try:
        import fastai  # noqa: F401
    except ImportError:
        print("fastai is not installed here", file=sys.stderr)
    else:
        loops["fastai"] = fastai_loop
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            taken[name].append(loop(precision))
    best = {name: statistics.median(values) for name, values in taken.items()}
    for name, value in best.items():
        share = value / best["bare loop"]
        print(f"{precision} {name}: {STEPS * BATCH / value:.1f} pictures/s, {share:.3f} of the bare loop's time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("precision", nargs="*", default=["fp32", "bf16"])
    for kind in parser.parse_args().precision:
        compare(kind)
