"""The average of finished runs: WiSE-FT and model soups, with the line between two runs drawn and measured."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.special import softmax

from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import labelled_pictures
from cascade.progress import track
from trainers.data.dataset import DataSet, load_data_set
from trainers.data.examples import Examples, split_examples
from trainers.data.loader import pictures_in_order
from trainers.distributed.process_context import ProcessContext, process_context
from trainers.loop.fit import predict
from trainers.loop.scores import multiclass_scores
from trainers.networks.averaging import averaged
from trainers.runs.evaluated import Evaluated
from trainers.runs.folder import Sidecar, TrainedRun, check_same_data, load_run, read_config
from trainers.runs.opening import check_run_folder, open_run
from trainers.runs.record import RunRecord
from trainers.runs.tracking import start_tracker, tracker_mode

_BATCH = 64  # pictures
_STATISTICS = 2048  # pictures that batch norms are estimated on, drawn with the run's seed


@dataclass(frozen=True)
class Point:
    """A place on the line between two runs: the share of the second one, and the top 1 at home and elsewhere."""

    share: float
    home: float
    elsewhere: float


@dataclass(frozen=True)
class _Ends:
    """What is averaged: the folders of the runs, the data set of all of them, and where the work is done."""

    folders: tuple[Path, ...]
    data: DataSet
    sidecar: Sidecar
    process: ProcessContext

    def network(self, shares: Sequence[float]) -> torch.nn.Module:
        """Return the average of the runs, on the device."""
        networks = [load_run(folder).network.to(self.process.device) for folder in self.folders]
        averaged(networks, shares, self._pictures())
        return networks[0]

    def logits(self, network: torch.nn.Module, examples: Examples) -> np.ndarray:
        """Return the logits (N, K) of examples."""
        batches = pictures_in_order(examples.paths, examples.targets, self.sidecar.preprocess, _BATCH)
        return predict(network, batches, self.process)[0]

    def _pictures(self) -> Iterator[torch.Tensor]:
        training = split_examples(self.data).training
        count = len(training.paths)
        chosen = np.random.default_rng(self.sidecar.seed).permutation(count)[:_STATISTICS]
        paths = [training.paths[index] for index in chosen]
        batches = pictures_in_order(paths, training.targets[chosen], self.sidecar.preprocess, _BATCH)
        for pixels, _, _ in track(batches.epoch(0), "estimating batch norms", len(batches)):
            yield pixels.to(self.process.device)


def average(
    folder: Path,
    runs: Sequence[Path],
    shares: Sequence[float],
    out: Path,
    tracker: str = "auto",
    overwrite: bool = False,
) -> TrainedRun:
    """Write the average of finished runs on one data set as a run; ``shares`` are relative weights, one per run.

    Raises
    ------
    CanonistiaError
        The runs are fewer than two, of other data or of different architectures, the shares do not fit, or ``out`` is
        not usable.
    """
    if len(shares) != len(runs) or not sum(shares) > 0:
        raise CanonistiaError(
            f"{len(shares)} shares for {len(runs)} runs, expected one each, not all of them 0; repeat --share"
        )
    check_run_folder(out, overwrite)
    ends = _ends(folder, runs)
    parts = [share / sum(shares) for share in shares]
    configs = [read_config(run) for run in runs]
    # Of a head and its fine-tuned network the average is a fine-tuned one, with the same settings.
    tuned = next((config for config in configs if config["unfreeze"] != "head"), configs[0])
    config = {
        **tuned,
        **ends.sidecar.as_config(),
        "data": folder.resolve().name,
        "start": None,
        "averaged": [str(run) for run in runs],
        "shares": parts,
        "tracker": tracker_mode(tracker),
    }
    validation = split_examples(ends.data).validation
    with open_run(out, config, overwrite, False, ends.process):
        network = ends.network(parts)
        logits = ends.logits(network, validation)
        started = start_tracker(tracker, out, out.name, group=out.name, job="average", config=config)
        with RunRecord(out, ends.sidecar, started, "top1", group=out.name) as record:
            scores = multiclass_scores(logits, validation.targets)
            record.epoch({"epoch": 0, **{f"validation_{name}": score for name, score in scores.items()}}, network)
            probabilities = softmax(logits.astype(np.float64), axis=1)
            record.evaluation(Evaluated(validation.paths, validation.targets, probabilities, tuple(ends.data.classes)))
    return load_run(out)


def line(folder: Path, runs: Sequence[Path], elsewhere: Path, points: int) -> list[Point]:
    """Return the top 1 of the averages of two runs, at ``points`` places from the first run to the second.

    It is measured on the validation split of their data set and on another data set, a folder or a manifest.

    Raises
    ------
    CanonistiaError
        The runs are not two, of other data or of different architectures, or a picture cannot be read.
    """
    if len(runs) != 2:
        raise CanonistiaError(f"a line is drawn between two runs, and {len(runs)} are given; name two")
    ends = _ends(folder, runs)
    index = {label: number for number, label in enumerate(ends.data.classes)}
    home = split_examples(ends.data).validation
    pictures = labelled_pictures(elsewhere, ends.data.classes)
    away = replace(
        home,
        paths=[picture.path for picture in pictures],
        targets=np.array([index[picture.label] for picture in pictures]),
    )
    found = []
    for share in np.linspace(0, 1, points):
        network = ends.network((1 - share, share))
        top1 = (multiclass_scores(ends.logits(network, part), part.targets)["top1"] for part in (home, away))
        found.append(Point(float(share), *top1))
    return found


def plot_line(points: Sequence[Point], out: Path) -> None:
    """Draw the top 1 elsewhere against the top 1 at home, with the share of the second run at each point."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([point.home for point in points], [point.elsewhere for point in points], marker="o")
    for point in points:
        axes.annotate(f" {point.share:.2g}", (point.home, point.elsewhere), fontsize=8)
    axes.set(xlabel="top 1 at home", ylabel="top 1 elsewhere", title="Between two runs: share of the second")
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


def line_rows(points: Sequence[Point]) -> list[dict[str, float]]:
    """Return the points as plain data."""
    return [asdict(point) for point in points]


def _ends(folder: Path, runs: Sequence[Path]) -> _Ends:
    if len(runs) < 2:
        raise CanonistiaError(f"an average is of two runs or more, and {len(runs)} is given; name another")
    trained = [load_run(run) for run in runs]
    first = trained[0].sidecar
    data = load_data_set(folder, first.seed)
    for run in trained:
        if (run.sidecar.backbone, run.sidecar.preprocess) != (first.backbone, first.preprocess):
            raise CanonistiaError(
                f"{run.folder} is {run.sidecar.backbone} at {run.sidecar.preprocess.size}, and {runs[0]} "
                f"{first.backbone} at {first.preprocess.size}; only runs of one architecture and preprocessing can be "
                "averaged"
            )
        check_same_data(folder, data, run)
    return _Ends(tuple(runs), data, msgspec.structs.replace(first, epoch=0), process_context("auto"))
