"""Quantising: a bundle again with 8-bit networks, its calibration and rules fitted anew, held to the float one."""

import shlex
import shutil
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
from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import readable_batches
from cascade.images.folders import LabelledPicture
from cascade.inference.engine import Engine, stack
from export.bundles.parity import check_parity
from export.bundles.provenance import changed_options
from export.bundles.refit import collect_logits, refit_manifest
from export.bundles.writing import write_manifest, written_at_once
from export.fitting.measure import EPOCH_NOTE, Measurement, measure
from export.fitting.selection import Terms, fit_cascade
from export.fitting.stage_logits import check_class_counts
from export.graphs.quantization import METHODS, relative_error, write_integers
from export.plan import BUDGET, FALSE_ALARM_RATE
from trainers.data.dataset import load_data_set
from trainers.progress import track

MOST_LOST = 0.003  # of the top 1 accuracy
_PICTURES = 96  # that ranges are calibrated on, and as many others that the methods are compared on
_BATCH = 8
_TURNS = 15  # of the pass that is timed in both forms


@dataclass(frozen=True)
class QuantizePlan:
    """What is quantised: a bundle, the data set that calibrates and judges it, and the terms of its rules."""

    model: str
    data: Path
    budget: float = BUDGET
    false_alarm_rate: float = FALSE_ALARM_RATE
    seed: int = 0
    split_seed: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class Comparison:
    """The two forms: the bundle as it is and the 8-bit one as it was written, both measured on the same pictures."""

    floating: Bundle
    integers: Bundle
    floating_measured: Measurement


def quantize(plan: QuantizePlan) -> Comparison:
    """Write the 8-bit form of a bundle into the folder ``int8`` inside its own.

    Ranges are calibrated on training pictures, by each of ``METHODS``; the one that keeps a network's features
    closest to the float ones on other training pictures is taken. Calibration and rules of the cascade are fitted
    anew on the validation pictures.

    Raises
    ------
    CanonistiaError
        The data set is not of the bundle's classes or too small, there is an 8-bit form already, or the cascade loses
        more than ``MOST_LOST`` of its top 1 on the validation pictures; nothing is written then.
    """
    bundle = read_bundle(find_bundle(plan.model))
    manifest = bundle.manifest
    place = bundle.folder / INT8
    if manifest.quantised:
        raise CanonistiaError(f"{bundle.folder} is quantised already; give the bundle that it was made from")
    if place.exists() and not plan.overwrite:
        raise CanonistiaError(f"{place} exists; --overwrite replaces it")
    data = load_data_set(plan.data, plan.split_seed)
    if data.fingerprint != manifest.provenance.data_fingerprint:
        raise CanonistiaError(
            f"{plan.data} is not the data set that {bundle.folder} was made from, or is split otherwise: pictures that "
            "it was trained on would be judged; give that one, and the --split-seed of its training if it has no splits"
        )
    targets = data.targets(data.validation)
    check_class_counts(targets, data.classes, "the validation split")
    terms = Terms(manifest.rules.candidates, manifest.second_stage_cost, plan.budget, plan.false_alarm_rate, plan.seed)
    paths = [picture.path for picture in data.validation]
    note = EPOCH_NOTE if EPOCH_NOTE in manifest.measured.method else ""
    exact = measure(collect_logits(Engine(bundle), paths, targets), terms, "validation", data.seen_in_training, note)

    with written_at_once(place, plan.overwrite) as folder:
        _copy_files(bundle, folder)
        chosen = _write_networks(bundle, folder, _spread(data.training, plan.seed))
        sizes = msgspec.structs.replace(_described(manifest, folder), name=f"{manifest.name}-{INT8}")
        write_manifest(folder, sizes)
        answers = collect_logits(Engine.load(folder), paths, targets)
        rounded = measure(answers, terms, "validation", data.seen_in_training, note)
        change = rounded.measured.cascade.top1 - exact.measured.cascade.top1
        _check_loss(bundle, change, rounded, exact)
        fitted = fit_cascade(answers, terms)
        speed_up = _speed_up(bundle, folder, paths)
        quantised = Quantised(chosen, change, speed_up, processor_kind())
        changed = refit_manifest(folder, sizes, fitted, rounded, _command(manifest, plan))
        write_manifest(folder, msgspec.structs.replace(changed, quantised=quantised))
        check_parity(Engine.load(folder), paths, answers, fitted)
    return Comparison(bundle, read_bundle(place), exact)


def _copy_files(bundle: Bundle, folder: Path) -> None:
    for entry in bundle.manifest.files:
        path = folder / entry.path
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(bundle.path(entry), path)


def _spread(pictures: Sequence[LabelledPicture], seed: int) -> list[Path]:
    """Return training pictures in random order, as many of one class as of another while they last."""
    order = np.random.default_rng(seed).permutation(len(pictures))
    seen: dict[str, int] = {}
    turns: list[tuple[int, int, Path]] = []
    for index in order:
        label = pictures[index].label
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], len(turns), pictures[index].path))
    return [path for _, _, path in sorted(turns)][: 2 * _PICTURES]


def _write_networks(bundle: Bundle, folder: Path, pictures: Sequence[Path]) -> dict[str, str]:
    """Write every network with 8 bits; return the method whose features are closest to the float ones, by file."""
    engine = Engine(bundle)
    dot_products = has_byte_dot_products()
    chosen = {}
    for entry, spec in track(bundle.manifest.networks, "quantising"):
        pixels = np.concatenate([stack(views, spec) for views in readable_batches(engine, pictures)])  # (N, S, S, 3)
        half = len(pixels) // 2
        tried: list[tuple[float, str, Path]] = []
        for method in METHODS:
            path = folder / f"{entry.path}.{method}"
            write_integers(bundle.path(entry), path, _batches(pixels[:half]), method, dot_products)
            tried.append((relative_error(bundle.path(entry), path, _batches(pixels[half:])), method, path))
        (_, chosen[entry.path], best), *others = sorted(tried)
        best.replace(folder / entry.path)
        for *_, path in others:
            path.unlink()
    return chosen


def _batches(pixels: np.ndarray) -> list[np.ndarray]:
    return [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]


def _described(manifest: Manifest, folder: Path) -> Manifest:
    replace = msgspec.structs.replace
    trunk = manifest.trunk
    return replace(
        manifest,
        main=replace(manifest.main, file=describe_file(folder, manifest.main.file.path)),
        trunk=trunk and replace(trunk, file=describe_file(folder, trunk.file.path)),
        submodels=[replace(part, file=describe_file(folder, part.file.path)) for part in manifest.submodels],
    )


def _check_loss(bundle: Bundle, change: float, rounded: Measurement, exact: Measurement) -> None:
    if change < -MOST_LOST:
        raise CanonistiaError(
            f"8 bits lose {-100 * change:.2f} points of top 1 on {exact.measured.pictures} validation pictures "
            f"({exact.measured.cascade.top1:.4f} to {rounded.measured.cascade.top1:.4f}), expected at most "
            f"{100 * MOST_LOST:.1f}; {bundle.folder} stays as it is"
        )


def _speed_up(bundle: Bundle, folder: Path, paths: Sequence[Path]) -> float:
    """Return how many times faster a pass of the main network is with 8 bits, by one thread, in turns."""
    entry, spec = bundle.manifest.networks[0]
    pixels = stack(next(readable_batches(Engine(bundle), paths[:_BATCH])), spec)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    files = (bundle.path(entry), folder / entry.path)
    sessions = [onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in files]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(_TURNS):
        for session, taken in zip(sessions, seconds, strict=True):
            started = time.perf_counter()
            session.run(["probabilities"], {"pixels": pixels})
            taken.append(time.perf_counter() - started)
    return median(seconds[0]) / median(seconds[1])


def _command(manifest: Manifest, plan: QuantizePlan) -> str:
    words = ["canonistia", "quantize", manifest.name, plan.data.resolve().name]
    return shlex.join([*words, *changed_options(plan, ("budget", "false_alarm_rate", "seed", "split_seed"))])
