"""Quantising: a bundle with 8-bit networks and refitted calibration and rules, compared with the float bundle."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import onnxruntime

from cascade.bundle.lookup import find_bundle
from cascade.bundle.manifest import Manifest, Quantised
from cascade.bundle.precision import INT8, has_byte_dot_products, processor_kind
from cascade.bundle.reading import Bundle, describe_file, read_bundle
from cascade.destinations import check_folder
from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import readable_batches
from cascade.images.folders import LabelledPicture
from cascade.inference.engine import Engine, stack
from cascade.progress import track
from cascade.rules.accept import Accept
from export.bundles.parity import check_parity
from export.bundles.provenance import changed_options
from export.bundles.refit import collect_logits, refit_manifest, terms_of
from export.bundles.writing import new_bundle_folder, write_manifest
from export.fitting.accept import PromiseError, fit_accept
from export.fitting.measure import EPOCH_NOTE, Measurement, measure
from export.fitting.selection import fit_cascade
from export.fitting.stage_logits import check_class_counts
from export.graphs.quantization import METHODS, quantize_network, relative_error
from export.plan import BOTH_RATE, BUDGET, FALSE_ALARM_RATE
from trainers.data.dataset import load_data_set

MOST_LOST = 0.003  # of the top-1 accuracy
_PICTURES = 96  # to calibrate ranges on, and as many others to compare the methods on
_BATCH = 8
_ROUNDS = 15  # of timing one pass of each form


@dataclass(frozen=True)
class QuantizePlan:
    """What to quantise: a bundle, the data set to calibrate and judge it on, and the terms of its rules."""

    model: str
    data: Path
    budget: float = BUDGET
    false_alarm_rate: float = FALSE_ALARM_RATE
    both_rate: float = BOTH_RATE
    seed: int = 0
    split_seed: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class Comparison:
    """The two forms, measured on the same pictures: the float bundle, and the 8-bit bundle as written."""

    floating: Bundle
    integers: Bundle
    floating_measured: Measurement

    @property
    def lost_promise(self) -> bool:
        """Return whether the float bundle says which answers are accepted, and its 8-bit form does not."""
        promises = [bundle.manifest.rules.accept is not None for bundle in (self.floating, self.integers)]
        return promises == [True, False]


def quantize(plan: QuantizePlan) -> Comparison:
    """Write the 8-bit form of a bundle into the folder ``int8`` inside the bundle's folder.

    Activation ranges are calibrated on training pictures by each of ``METHODS``. For each network the method whose
    features are closest to the float features on other training pictures is kept. Calibration and rules of the
    cascade are refitted on the validation pictures.

    The threshold of accepted answers is refitted for what the float bundle promises, and left out where that cannot be
    promised any more.

    Raises
    ------
    CanonistiaError
        The data set is too small or not the bundle's own, there is an 8-bit form already, or the cascade loses more
        than ``MOST_LOST`` of its top-1 accuracy on the validation pictures. Nothing is written then.
    """
    bundle = read_bundle(find_bundle(plan.model))
    check_folder(bundle.folder)
    manifest = bundle.manifest
    target = bundle.folder / INT8
    if manifest.quantised:
        raise CanonistiaError(
            f"{bundle.folder} is quantised already, expected a float bundle; give the bundle that it was made from"
        )
    if target.exists() and not plan.overwrite:
        raise CanonistiaError(f"{target} exists; replace it with --overwrite")
    data = load_data_set(plan.data, plan.split_seed)
    if data.fingerprint != manifest.provenance.data_fingerprint:
        raise CanonistiaError(
            f"{plan.data} is not the data set that {bundle.folder} was made from, or it is split differently; expected "
            "the same split, because training pictures must not be judged; give that data set, with the --seed of "
            "train-main as --split-seed if it has no splits"
        )
    targets = data.targets(data.validation)
    check_class_counts(targets, data.classes, "the validation split")
    terms = terms_of(manifest, plan.budget, plan.false_alarm_rate, plan.both_rate, plan.seed)
    paths = [picture.path for picture in data.validation]
    note = EPOCH_NOTE if EPOCH_NOTE in manifest.measured.method else ""
    float_measurement = measure(
        collect_logits(Engine(bundle), paths, targets, plan.seed), terms, "validation", data.seen_in_training, note
    )

    with new_bundle_folder(target, plan.overwrite) as folder:
        _copy_files(bundle, folder)
        chosen = _write_networks(bundle, folder, _balanced_sample(data.training, plan.seed))
        unfitted = msgspec.structs.replace(_describe_files(manifest, folder), name=f"{manifest.name}-{INT8}")
        write_manifest(folder, unfitted)
        logits = collect_logits(Engine.load(folder), paths, targets, plan.seed)
        measurement = measure(logits, terms, "validation", data.seen_in_training, note)
        change = measurement.measured.cascade.top1 - float_measurement.measured.cascade.top1
        _check_accuracy(bundle, change, measurement, float_measurement)
        fitted = fit_cascade(logits, terms).promising(_refitted(manifest, measurement, targets))
        speed_up = _speed_up(bundle, folder, paths)
        quantised = Quantised(chosen, change, speed_up, processor_kind())
        changed = refit_manifest(folder, unfitted, fitted, measurement, _command(manifest, plan))
        write_manifest(folder, msgspec.structs.replace(changed, quantised=quantised))
        check_parity(Engine.load(folder), paths, logits, fitted)
    return Comparison(bundle, read_bundle(target), float_measurement)


def _refitted(manifest: Manifest, measurement: Measurement, targets: np.ndarray) -> Accept | None:
    promised = manifest.rules.accept
    if promised is None:
        return None
    try:
        return fit_accept(measurement.answers, targets, promised.accuracy)
    except PromiseError:
        return None


def _copy_files(bundle: Bundle, folder: Path) -> None:
    for entry in bundle.manifest.files:
        path = folder / entry.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bundle.content(entry))


def _balanced_sample(pictures: Sequence[LabelledPicture], seed: int) -> list[Path]:
    """Return a random sample of training pictures, with the same number per class as far as there are enough."""
    order = np.random.default_rng(seed).permutation(len(pictures))
    counts: dict[str, int] = {}
    ranked: list[tuple[int, int, Path]] = []
    for index in order:
        label = pictures[index].label
        counts[label] = counts.get(label, 0) + 1
        ranked.append((counts[label], len(ranked), pictures[index].path))
    return [path for _, _, path in sorted(ranked)][: 2 * _PICTURES]


def _write_networks(bundle: Bundle, folder: Path, pictures: Sequence[Path]) -> dict[str, str]:
    """Write every network with 8 bits; return, by file, the calibration method that was kept."""
    engine = Engine(bundle)
    dot_products = has_byte_dot_products()
    chosen = {}
    for entry, spec in track(bundle.manifest.networks, "quantising"):
        pixels = np.concatenate([stack(views, spec) for views in readable_batches(engine, pictures)])  # (N, S, S, 3)
        half = len(pixels) // 2
        tried: list[tuple[float, str, Path]] = []
        for method in METHODS:
            path = folder / f"{entry.path}.{method}"
            quantize_network(bundle.folder / entry.path, path, _batches(pixels[:half]), method, dot_products)
            tried.append((relative_error(bundle.folder / entry.path, path, _batches(pixels[half:])), method, path))
        (_, chosen[entry.path], best), *others = sorted(tried)
        best.replace(folder / entry.path)
        for *_, path in others:
            path.unlink()
    return chosen


def _batches(pixels: np.ndarray) -> list[np.ndarray]:
    return [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]


def _describe_files(manifest: Manifest, folder: Path) -> Manifest:
    """Return the manifest with sizes and hashes of the files in ``folder``."""
    replace = msgspec.structs.replace
    trunk = manifest.trunk
    return replace(
        manifest,
        main=replace(manifest.main, file=describe_file(folder, manifest.main.file.path)),
        trunk=trunk and replace(trunk, file=describe_file(folder, trunk.file.path)),
        submodels=[replace(part, file=describe_file(folder, part.file.path)) for part in manifest.submodels],
    )


def _check_accuracy(bundle: Bundle, change: float, rounded: Measurement, exact: Measurement) -> None:
    if change < -MOST_LOST:
        raise CanonistiaError(
            f"8 bits lose {-100 * change:.2f} points of top 1 on {exact.measured.pictures} validation pictures "
            f"({exact.measured.cascade.top1:.4f} to {rounded.measured.cascade.top1:.4f}), expected at most "
            f"{100 * MOST_LOST:.1f}; no 8-bit form was written, go on with {bundle.folder} in floating point"
        )


def _speed_up(bundle: Bundle, folder: Path, paths: Sequence[Path]) -> float:
    """Return how many times as fast a pass of the main network is with 8 bits, on one thread, timed in turns."""
    entry, spec = bundle.manifest.networks[0]
    pixels = stack(next(readable_batches(Engine(bundle), paths[:_BATCH])), spec)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    files = (bundle.folder / entry.path, folder / entry.path)
    sessions = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in files]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for session, taken in zip(sessions, seconds, strict=True):
            started = time.perf_counter()
            session.run(["logits"], {"pixels": pixels})
            taken.append(time.perf_counter() - started)
    return median(seconds[0]) / median(seconds[1])


def _command(manifest: Manifest, plan: QuantizePlan) -> str:
    arguments = ["canonistia", "quantize", manifest.name, plan.data.resolve().name]
    return shlex.join(
        [*arguments, *changed_options(plan, ("budget", "false_alarm_rate", "both_rate", "seed", "split_seed"))]
    )
