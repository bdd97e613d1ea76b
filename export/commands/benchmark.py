"""The standard protocol: a cascade compared with its own stages, on random splits of one pooled data set."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.special import log_softmax
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from cascade.bundle.manifest import HeadFeatures
from cascade.errors import CanonistiaError
from cascade.evaluation.metrics import top_k_hits
from cascade.images.folders import LabelledPicture
from cascade.images.layout import class_names
from cascade.images.manifest import labelled_pictures
from cascade.images.preprocess import Colour, PreprocessSpec
from cascade.progress import track
from cascade.rules.cascade import known_answers, run_cascade
from export.fitting.calibration import fit_temperature
from export.fitting.decisions import fit_decision
from export.fitting.selection import Terms, everything_routed, fit_cascade
from export.fitting.stage_logits import StageLogits, Stages
from export.graphs.cost import multiply_adds
from trainers.data.fingerprints import fingerprint, same_picture_groups
from trainers.data.loader import all_grey
from trainers.features.cache import cached_features
from trainers.features.negatives import cross_fitted, example_weights
from trainers.networks.backbones import backbone_spec
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import DEFAULT_POLICY

_FOLDS = 5
# Inverse weight decay of the linear heads; each split chooses one of these on its training pictures.
_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
_FALSE_ALARMS = 0.02  # of the "unsure" mark, which the protocol does not measure
_MAX_ITERATIONS, _TOLERANCE = 300, 1e-3


@dataclass(frozen=True)
class BenchmarkPlan:
    """What to run: the networks of both stages, how the pooled pictures are split, and the budget in main passes.

    ``features`` says whether the submodels read only their trunk's features or also those of the main model.
    """

    data: Path
    main: NetworkConfig
    second: NetworkConfig
    splits: int = 10
    per_class: int = 100
    budget: float = 2.0
    seed: int = 0
    features: HeadFeatures = "trunk"


@dataclass(frozen=True)
class SplitResult:
    """Mistakes on the test pictures of one split, by who decides; ``cost`` is in main passes per picture."""

    seed: int
    trained_on: int
    tested_on: int
    main: int
    second: int  # the submodels alone, on every picture: the highest wins
    everything: int  # the cascade's own decision with every picture routed
    cascade: int
    cascade_outside_two: int  # the true class is not among the top two
    routed: float
    cost: float


@dataclass(frozen=True)
class Pool:
    """Frozen features of both stages (N, D1), (N, D2), with classes (N,) and groups of copies of one picture (N,).

    ``second`` is what the submodels read.
    """

    classes: tuple[str, ...]
    main: np.ndarray
    second: np.ndarray
    targets: np.ndarray
    groups: np.ndarray
    terms: Terms


def read_pool(plan: BenchmarkPlan) -> Pool:
    """Return the frozen features of all pictures of a data set, whatever split they are in.

    Raises
    ------
    CanonistiaError
        The data set or a backbone cannot be read, there are fewer than two classes, or a class is too small.
    """
    pictures = labelled_pictures(plan.data)
    classes = tuple(class_names(pictures))
    if len(classes) < 2:
        raise CanonistiaError(f"{plan.data} has one class, {classes[0]}; expected two or more, one folder per class")
    targets = np.array([classes.index(picture.label) for picture in pictures])
    counts = np.bincount(targets)
    fewest = int(counts.argmin())
    if counts[fewest] <= plan.per_class:
        raise CanonistiaError(
            f"{classes[fewest]} has {counts[fewest]} pictures, expected more than the {plan.per_class} per class that "
            "are trained on; give a smaller --per-class"
        )
    networks = [build_classifier(config, 1) for config in (plan.main, plan.second)]
    sizes = [config.size or backbone_spec(config.backbone).size for config in (plan.main, plan.second)]
    main_cost, second_cost = (multiply_adds(*pair) for pair in zip(networks, sizes, strict=True))
    terms = Terms(len(classes), second_cost / main_cost, plan.budget, _FALSE_ALARMS, plan.seed)

    paths = [picture.path for picture in pictures]
    fingerprints = [fingerprint(path) for path in track(paths, "looking for copies of a picture")]
    colour: Colour = "grey" if all_grey(paths) else "rgb"
    main, second = (
        _features(
            network,
            PreprocessSpec(size, config.resize, backbone_spec(config.backbone).interpolation, colour),
            pictures,
        )
        for network, size, config in zip(networks, sizes, (plan.main, plan.second), strict=True)
    )
    if plan.features == "both":
        second = np.concatenate([second, main], axis=1)
    return Pool(classes, main, second, targets, np.array(same_picture_groups(fingerprints)), terms)


def run_benchmark(pool: Pool, plan: BenchmarkPlan) -> Iterator[SplitResult]:
    """Yield the result of each split, with heads, calibration and rules fitted on its training pictures only."""
    for seed in range(plan.seed, plan.seed + plan.splits):
        training, test = split_indices(pool.targets, pool.groups, plan.per_class, seed)
        # Weight decay, calibration and rules are fitted on out-of-fold logits of the training pictures.
        main, submodels = (_best_strength(stage, pool, training, seed) for stage in (_main_logits, _submodel_logits))
        targets, distance = pool.targets, np.ones(len(pool.targets))  # only the "unsure" mark needs the distance
        training_logits = StageLogits(main.out_of_fold, distance[training], submodels.out_of_fold, targets[training])
        fitted = fit_cascade(training_logits, pool.terms)
        test_logits = StageLogits(
            _main_logits(pool, training, test, [main.strength])[0],
            distance[test],
            _submodel_logits(pool, training, test, [submodels.strength])[0],
            targets[test],
        )
        stages = test_logits.calibrated(fitted.calibrators)
        output = run_cascade(fitted.rules, stages.main, stages.distance, known_answers(stages.submodels))
        # For the comparison with all pictures routed, the decision rule is refitted on all pictures.
        training_stages = training_logits.calibrated(fitted.calibrators)
        every = np.ones(len(training), dtype=bool)
        decision = fit_decision(fitted.rules.decision.name, training_stages, every, pool.terms.candidates)
        everything = everything_routed(decision, stages, pool.terms.candidates)
        _, in_top_two = top_k_hits(output.probabilities, stages.targets)
        yield SplitResult(
            seed=seed,
            trained_on=len(training),
            tested_on=len(test),
            main=_mistakes(stages.main, stages),
            second=_mistakes(stages.submodels, stages),
            everything=_mistakes(everything, stages),
            cascade=_mistakes(output.probabilities, stages),
            cascade_outside_two=int((~in_top_two).sum()),
            routed=float(output.routed.mean()),
            cost=pool.terms.cost(output.routed),
        )


def split_indices(targets: np.ndarray, groups: np.ndarray, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices to train on, ``per_class`` of each class, and all others to test on; groups stay whole.

    Raises
    ------
    CanonistiaError
        A class has too few pictures once groups stay whole.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    room = np.full(int(targets.max()) + 1, per_class)
    members: dict[int, list[int]] = {}
    for index in order:
        members.setdefault(int(groups[index]), []).append(int(index))
    training: list[int] = []
    for indices in members.values():
        needed = np.bincount(targets[indices], minlength=len(room))
        if (needed <= room).all():
            room -= needed
            training += indices
    if room.any():
        raise CanonistiaError(
            f"a class has fewer than {per_class} pictures to train on when copies of one picture stay together, "
            "expected at least as many; give a smaller --per-class"
        )
    chosen = np.array(sorted(training))
    return chosen, np.setdiff1d(np.arange(len(targets)), chosen)


def paired_difference(results: Sequence[SplitResult], baseline: str) -> tuple[float, tuple[float, float] | None]:
    """Return the mean of the cascade's mistakes minus a baseline's, and its 95% interval (None for a single split).

    Splits of one pool overlap, so their plain variance is too small. The interval is that of the corrected resampled
    t-test (Nadeau and Bengio, Machine Learning 52, 2003).
    """
    differences = np.array([result.cascade - getattr(result, baseline) for result in results], dtype=float)
    mean = float(differences.mean())
    if len(differences) < 2:
        return mean, None
    ratio = results[0].tested_on / results[0].trained_on
    error = float(np.sqrt((1 / len(differences) + ratio) * differences.var(ddof=1)))
    half_width = float(student.ppf(0.975, len(differences) - 1)) * error
    return mean, (mean - half_width, mean + half_width)


def summary(plan: BenchmarkPlan, results: Sequence[SplitResult]) -> dict[str, object]:
    """Return all results as plain data, ready for JSON."""
    differences = {name: paired_difference(results, name) for name in ("main", "second", "everything")}
    return {
        "backbones": "frozen",
        "main": {"backbone": plan.main.backbone, "size": plan.main.size},
        "second": {
            "backbone": plan.second.backbone,
            "size": plan.second.size,
            "flip": plan.second.flip,
            "features": plan.features,
        },
        "budget": plan.budget,
        "means": {
            name: float(np.mean([getattr(result, name) for result in results]))
            for name in ("main", "second", "everything", "cascade", "routed", "cost")
        },
        "splits": [asdict(result) for result in results],
        "cascade_less": {name: {"mean": mean, "interval": interval} for name, (mean, interval) in differences.items()},
    }


def describe(results: Sequence[SplitResult]) -> str:
    """Return the results as text: a table of mean and standard deviation, and the paired differences."""
    names = ("main", "second", "everything", "cascade")
    first = results[0]
    lines = [
        f"{first.trained_on} pictures to train, {first.tested_on} to test in each split; frozen features, linear heads",
        "",
        f"{'mistakes':<26}{'mean':>8}{'sd':>7}{'top 1':>9}",
    ]
    titles = ("main model alone", "second stage alone", "cascade, all routed", "cascade")
    for title, name in zip(titles, names, strict=True):
        values = np.array([getattr(result, name) for result in results], dtype=float)
        spread = f"{values.std(ddof=1):.1f}" if len(values) > 1 else "-"
        lines.append(f"{title:<26}{values.mean():>8.1f}{spread:>7}{1 - values.mean() / first.tested_on:>9.4f}")
    mains = float(np.mean([result.main for result in results]))
    routed, cost = (float(np.mean([getattr(result, name) for result in results])) for name in ("routed", "cost"))
    lines += ["", f"routed {routed:.1%}, mean cost {cost:.2f} passes of the main model", ""]
    for title, name in zip(titles[:3], names[:3], strict=True):
        mean, interval = paired_difference(results, name)
        share = f", {-mean / mains:.1%} fewer mistakes" if name == "main" and mains else ""
        lines.append(f"cascade less {title}: {mean:+.1f}{_describe_interval(interval)}{share}")
    return "\n".join(lines)


def _describe_interval(interval: tuple[float, float] | None) -> str:
    return f", 95% interval {interval[0]:+.1f} to {interval[1]:+.1f}" if interval else ", no interval of one split"


def _features(network: Classifier, spec: PreprocessSpec, pictures: Sequence[LabelledPicture]) -> np.ndarray:
    """Return features (N, D), computed split by split, because training caches them by split."""
    splits = dict.fromkeys(picture.split for picture in pictures)
    parts = [
        cached_features(network, [picture.path for picture in pictures if picture.split == split], spec, "cpu").numpy()
        for split in splits
    ]
    return np.concatenate(parts)


Logits = Callable[[Pool, np.ndarray, np.ndarray, Sequence[float]], np.ndarray]


@dataclass(frozen=True)
class _CrossFitted:
    """An inverse weight decay, and the out-of-fold logits (N, K) of heads trained with it."""

    strength: float
    out_of_fold: np.ndarray


@threadpool_limits.wrap(limits=1)
def _main_logits(pool: Pool, training: np.ndarray, judged: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
    """Return logits (S, M, K): one linear head per strength, fitted on the training indices, for the judged ones."""
    heads = [_head(strength).fit(pool.main[training], pool.targets[training]) for strength in strengths]
    logits = np.stack([head.decision_function(pool.main[judged]) for head in heads])
    # For two classes scikit-learn gives one logit, that of the second class.
    return logits if logits.ndim == 3 else np.stack([np.zeros_like(logits), logits], axis=2)


@threadpool_limits.wrap(limits=1)
def _submodel_logits(pool: Pool, training: np.ndarray, judged: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
    """Return logits (S, M, K): one binary linear head per strength and class; see :func:`_main_logits`."""
    targets = pool.targets[training]
    probabilities = cross_fitted(pool.main[training], targets)
    logits = np.empty((len(strengths), len(judged), len(pool.classes)))
    for label in range(len(pool.classes)):
        weights = example_weights(DEFAULT_POLICY, targets, label, probabilities)
        for position, strength in enumerate(strengths):
            head = _head(strength).fit(pool.second[training], targets == label, sample_weight=weights)
            logits[position, :, label] = head.decision_function(pool.second[judged])
    return logits


def _best_strength(stage: Logits, pool: Pool, training: np.ndarray, seed: int) -> _CrossFitted:
    targets = pool.targets[training]
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    logits = np.empty((len(_STRENGTHS), len(training), len(pool.classes)))
    for fitted, held_out in folds.split(training, targets, pool.groups[training]):
        logits[:, held_out] = stage(pool, training[fitted], training[held_out], _STRENGTHS)
    candidates = [_CrossFitted(*pair) for pair in zip(_STRENGTHS, logits, strict=True)]
    return min(candidates, key=lambda candidate: _log_loss(candidate.out_of_fold, targets))


def _log_loss(logits: np.ndarray, targets: np.ndarray) -> float:
    scaled = log_softmax(logits / fit_temperature(logits, targets), axis=1)
    return float(-scaled[np.arange(len(targets)), targets].mean())


def _head(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS, tol=_TOLERANCE)


def _mistakes(probabilities: np.ndarray, stages: Stages) -> int:
    first, _ = top_k_hits(probabilities, stages.targets)
    return int((~first).sum())
