"""Few pictures: what a cross-fitted cascade gains over its main model, and whether its stated interval is true.

    python -m benchmarks.few_pictures DATA FEATURES.npz --per-class 10 --draws 20

DATA is a data set; its splits are pooled. FEATURES.npz keeps the features of both frozen networks, computed once. Each
draw trains on so many pictures of each class, as `fit` does on few pictures, and is scored on all pictures not drawn.
The cascade less its main model has two intervals: that of the draws on this pool, which hardly share a picture that
they train on, and that of the corrected resampled t-test (Nadeau and Bengio 2003), which is far wider where so much
more is scored than trained on.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import ttest_1samp

from cascade.evaluation.metrics import top_k_hits
from cascade.images.layout import class_names
from cascade.images.manifest import labelled_pictures
from cascade.images.preprocess import Colour, PreprocessSpec
from cascade.progress import track
from cascade.rules.cascade import known_answers, run_cascade
from export.bundles.cross_fit import HeadRecipes, Heads, Pictures, StageFeatures, cross_fit
from export.commands.benchmark import SplitResult, paired_difference, split_indices
from export.fitting.measure import measure
from export.fitting.selection import Terms, fit_cascade
from export.graphs.cost import multiply_adds
from export.graphs.distance import fit_distances
from export.plan import BUDGET, FALSE_ALARM_RATE
from trainers.data.fingerprints import fingerprint, same_picture_groups
from trainers.data.loader import all_grey
from trainers.features.cache import compute_features
from trainers.networks.backbones import backbone_spec
from trainers.networks.classifier import build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import DEFAULT_POLICY, MAIN_DEFAULTS, SUB_DEFAULTS

MAIN, SECOND = NetworkConfig("efficientnet_lite0", size=224), NetworkConfig("efficientnet_lite2", size=240)
RECIPES = HeadRecipes(MAIN_DEFAULTS, SUB_DEFAULTS, DEFAULT_POLICY)


@dataclass(frozen=True)
class Pool:
    """Features of both stages, classes and groups of copies of all pictures; the second stage's cost in main passes."""

    features: StageFeatures
    targets: np.ndarray
    groups: np.ndarray
    cost: float


@dataclass(frozen=True)
class Draw:
    """The mistakes of one draw on all pictures not drawn, and the interval of top 1 that its bundle would state."""

    result: SplitResult
    stated: tuple[float, float]

    @property
    def top1(self) -> float:
        """Return the cascade's top 1 on the pictures not drawn."""
        return 1 - self.result.cascade / self.result.tested_on

    @property
    def is_inside(self) -> bool:
        """Return whether that top 1 lies in the stated interval."""
        return self.stated[0] <= self.top1 <= self.stated[1]


def write_pool(data: Path, path: Path) -> None:
    """Compute the features of every picture with both networks, and keep them."""
    pictures = labelled_pictures(data)
    classes = class_names(pictures)
    paths = [picture.path for picture in pictures]
    colour: Colour = "grey" if all_grey(paths) else "rgb"
    features, costs = [], []
    for config in (MAIN, SECOND):
        network, size = build_classifier(config, 1), config.size or 0
        spec = PreprocessSpec(size, config.resize, backbone_spec(config.backbone).interpolation, colour)
        features.append(compute_features(network, paths, spec, "cpu").numpy())
        costs.append(multiply_adds(network, size))
    prints = [fingerprint(one) for one in track(paths, "looking for copies of a picture")]
    np.savez(
        path,
        main=features[0],
        second=features[1],
        targets=np.array([classes.index(picture.label) for picture in pictures]),
        groups=np.array(same_picture_groups(prints)),
        cost=costs[1] / costs[0],
    )


def read_pool(path: Path) -> Pool:
    """Return what :func:`write_pool` kept."""
    with np.load(path) as kept:
        features = StageFeatures(torch.from_numpy(kept["main"]), torch.from_numpy(kept["second"]))
        return Pool(features, kept["targets"], kept["groups"], float(kept["cost"]))


def draw(pool: Pool, per_class: int, seed: int) -> Draw:
    """Train on a draw of pictures and score the rest."""
    drawn, rest = split_indices(pool.targets, pool.groups, per_class, seed)
    targets, features = pool.targets[drawn], pool.features.take(drawn)
    crossed = cross_fit(features, Pictures(targets, np.ones(len(drawn)), pool.groups[drawn]), RECIPES, seed)
    logits = crossed.logits(features, targets, crossed.fold)
    terms = Terms(int(targets.max()) + 1, pool.cost, BUDGET, FALSE_ALARM_RATE, seed)
    stated = measure(logits, terms, "training", 0).measured.cascade.top1_interval
    fitted = fit_cascade(logits, terms)
    served = Heads(*crossed.mean(), fit_distances(features.main.numpy(), targets))
    stages = served.logits(pool.features.take(rest), pool.targets[rest]).calibrated(fitted.calibrators)
    output = run_cascade(fitted.rules, stages.main, stages.distance, known_answers(stages.submodels))

    def mistakes(probabilities: np.ndarray, first: int = 0) -> int:
        return int((~top_k_hits(probabilities, stages.targets)[first]).sum())

    result = SplitResult(
        seed=seed,
        trained_on=len(drawn),
        tested_on=len(rest),
        main=mistakes(stages.main),
        second=mistakes(stages.submodels),
        everything=mistakes(stages.submodels),
        cascade=mistakes(output.probabilities),
        cascade_outside_two=mistakes(output.probabilities, 1),
        routed=float(output.routed.mean()),
        cost=terms.cost(output.routed),
    )
    return Draw(result, stated)


def describe(draws: list[Draw]) -> str:
    """Return what all draws show together."""
    results, tested = [one.result for one in draws], draws[0].result.tested_on
    mean, interval = paired_difference(results, "main")
    shown = f", corrected [{-interval[1] / tested:+.4f}, {-interval[0] / tested:+.4f}]" if interval else ""
    if interval:
        plain = ttest_1samp([(result.main - result.cascade) / tested for result in results], 0).confidence_interval()
        shown = f" [{plain.low:+.4f}, {plain.high:+.4f}]{shown}"
    inside = sum(one.is_inside for one in draws)
    main = 1 - np.mean([result.main for result in results]) / tested
    cascade = 1 - np.mean([result.cascade for result in results]) / tested
    return (
        f"main {main:.4f}, cascade {cascade:.4f}, cascade less main {-mean / tested:+.4f}{shown}; top 1 on the "
        f"{tested:,} pictures not drawn is in the stated interval in {inside} of {len(draws)} draws"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--draws", type=int, default=20)
    given = parser.parse_args()
    if not given.features.exists():
        write_pool(given.data, given.features)
    known = read_pool(given.features)
    made: list[Draw] = []
    for number in range(given.draws):
        made.append(draw(known, given.per_class, number))
        last = made[-1]
        print(
            f"draw {number}: main {1 - last.result.main / last.result.tested_on:.4f}, cascade {last.top1:.4f}, stated "
            f"[{last.stated[0]:.4f}, {last.stated[1]:.4f}]{'' if last.is_inside else ' OUTSIDE'}, routed "
            f"{last.result.routed:.1%}",
            flush=True,
        )
    print(describe(made))
