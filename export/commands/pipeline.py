"""A whole pipeline of commands, run and scored on folds of a data set: sources left out, or random splits."""

import json
import math
import shlex
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

import numpy as np

from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import evaluate
from cascade.files import write_json
from cascade.images.folders import LabelledPicture
from cascade.images.layout import class_names
from cascade.images.manifest import labelled_pictures
from cascade.inference.loading import load_engine
from cascade.progress import track
from cascade.threads import processors
from export.commands.benchmark import split_indices
from export.commands.composed_set import composed_figures
from trainers.data.fingerprints import fingerprint, same_picture_groups
from trainers.data.manifest import write_pictures

Call = Callable[[Sequence[str]], object]

# The pipeline of docs/training.md: {data} is the fold's manifest, {run} its folder. The last step makes {run}/bundle.
DEFAULT_STEPS = (
    "train-main {data} --out {run}/main --no-report --tracker none",
    "train-sub {data} --main {run}/main --out {run}/subs --tracker none",
    "export --main {run}/main --subs {run}/subs --data {data} --out {run}/bundle",
)
_FEWEST = 30  # pictures of a source that is left out; fewer tell nothing
_FIGURES = (("cascade", "top1"), ("cascade", "top2"), ("cascade", "ece"), ("main", "top1"))


@dataclass(frozen=True)
class Fold:
    """The pictures that a pipeline gets, with their splits, and those that its cascade is scored on."""

    name: str
    given: tuple[LabelledPicture, ...]
    scored: tuple[LabelledPicture, ...]


def read_steps(path: Path | None) -> tuple[str, ...]:
    """Return the steps of a pipeline file: TOML with a list ``steps`` of canonistia commands; None gives the default.

    Raises
    ------
    CanonistiaError
        The file cannot be read, is no such list, or no step makes ``{run}/bundle``.
    """
    if path is None:
        return DEFAULT_STEPS
    try:
        steps = tomllib.loads(path.read_text(encoding="utf-8")).get("steps")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CanonistiaError(f"{path} cannot be read as TOML ({error}); correct it") from error
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
        raise CanonistiaError(f"{path} has no list of commands, expected steps = ['train-main {{data}} …', …]")
    if not any("{run}/bundle" in shlex.split(step) for step in steps):
        raise CanonistiaError(f"{path} has no step that makes {{run}}/bundle, which is scored; let export write it")
    return tuple(steps)


def source_folds(data: Path) -> list[Fold]:
    """Return one fold for each source with training pictures alone, which is left out of training and scored.

    A source that brings its own validation split is at home: its training and validation pictures stay in every fold.

    Raises
    ------
    CanonistiaError
        There are fewer than two sources, none can be left out, or a source has a class that no other has.
    """
    pictures = labelled_pictures(data)
    counts = Counter(picture.source for picture in pictures)
    if len(counts) < 2:
        raise CanonistiaError(
            f"{data} names {len(counts)} source, expected two or more in a column source; join data sets with "
            "canonistia check-data --add --fix"
        )
    home = {picture.source for picture in pictures if picture.split in ("validation", "test")}
    out = [source for source in sorted(counts) if source not in home and counts[source] >= _FEWEST]
    if not out:
        raise CanonistiaError(f"{data} has no source of {_FEWEST} training pictures or more that could be left out")
    folds = []
    for source in out:
        given = [picture for picture in pictures if picture.source != source and picture.split != "test"]
        scored = [picture for picture in pictures if picture.source == source]
        lost = sorted(set(class_names(scored)) - set(class_names(given)))
        if lost:
            raise CanonistiaError(
                f"no picture of {', '.join(lost)} is left without the source {source}, so nothing could learn it; "
                "add pictures of it from another source, or take these out"
            )
        folds.append(Fold(source, tuple(given), tuple(scored)))
    return folds


def random_folds(data: Path, splits: int, per_class: int, seed: int) -> list[Fold]:
    """Return random splits of the pooled pictures: ``per_class`` of each class for training, the others are scored.

    The pipeline takes its validation pictures from those for training. Copies of a picture stay together.

    Raises
    ------
    CanonistiaError
        A class has too few pictures.
    """
    pictures = labelled_pictures(data)
    classes = class_names(pictures)
    targets = np.array([classes.index(picture.label) for picture in pictures])
    prints = [fingerprint(picture.path) for picture in track(pictures, "looking for copies of a picture")]
    groups = np.array(same_picture_groups(prints))
    folds = []
    for number in range(seed, seed + splits):
        training, test = split_indices(targets, groups, per_class, number)
        given = tuple(replace(pictures[index], split="training") for index in training)
        folds.append(Fold(f"split{number}", given, tuple(pictures[index] for index in test)))
    return folds


def run_pipeline(folds: Sequence[Fold], steps: Sequence[str], out: Path, call: Call) -> Iterator[dict[str, Any]]:
    """Yield the figures of each fold (see :meth:`cascade.evaluation.evaluation.Evaluation.report`), in order.

    Each fold has a folder below ``out`` with its manifest, what the steps made, and ``report.json``. A run that was
    stopped goes on: finished folds and steps are not repeated.

    Raises
    ------
    CanonistiaError
        ``out`` was begun with other steps or pictures, or a step fails.
    """
    for fold in folds:
        run = out / fold.name
        report = run / "report.json"
        _begin(fold, run, steps)
        if not report.exists():
            _run_steps(run, steps, call)
            figures = scored(run / "bundle", fold.scored, f"scoring {fold.name}")
            composed = composed_figures(load_engine(str(run / "bundle"), threads=1), fold.scored, processors())
            write_json(report, {**figures, "composed": composed})
        yield {"name": fold.name, **json.loads(report.read_bytes())}


def summary(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all folds, their means in which every fold counts as much, and the cascade's gain.

    ``gain`` is the cascade's top 1 less its main model's over all pictures, with its 95% interval for paired shares.
    """
    pictures = sum(report["pictures"] for report in reports)
    gained, lost = (sum(report["second_stage"][name] for report in reports) for name in ("gained", "lost"))
    gain = (gained - lost) / pictures
    half = NormalDist().inv_cdf(0.975) * math.sqrt(gained + lost - (gained - lost) ** 2 / pictures) / pictures
    means: dict[str, dict[str, float]] = {"main": {}, "cascade": {}}
    for stage, name in _FIGURES:
        means[stage][name] = fmean(report[stage][name] for report in reports)
    plain = {name: fmean(report[name] for report in reports) for name in ("routed", "cost", "unsure")}
    composed = [report["composed"] for report in reports if report.get("composed")]  # reports of before have none
    if composed:
        means["composed"] = {way: fmean(one[way]["both_named"] for one in composed) for way in composed[0]}
    return {
        "folds": {report["name"]: report for report in reports},
        "mean": {**means, **plain},
        "gain": {"top1": gain, "interval": (gain - half, gain + half), "gained": gained, "lost": lost},
    }


def describe(found: dict[str, Any]) -> str:
    """Return a summary as a table: a line for each fold, the means, and the cascade's gain."""
    width = max(len("mean"), *(len(name) for name in found["folds"]))
    lines = [f"{'':<{width}}  pictures  main top 1  cascade top 1               top 2   calibration error  unsure"]
    for name, report in [*found["folds"].items(), ("mean", found["mean"])]:
        cascade = report["cascade"]
        top1 = f"{cascade['top1']:.4f}"
        if "top1_interval" in cascade:
            top1 += " [{:.4f}, {:.4f}]".format(*cascade["top1_interval"])
        lines.append(
            f"{name:<{width}}  {report.get('pictures', ''):>8}  {report['main']['top1']:<12.4f}{top1:<28}"
            f"{cascade['top2']:<8.4f}{cascade['ece']:<19.4f}{report['unsure']:.1%}"
        )
    if "composed" in found["mean"]:
        named = ", ".join(f"{way.replace('_', ' ')} {share:.1%}" for way, share in found["mean"]["composed"].items())
        lines += ["", f"composed of two of the scored pictures, both classes named: {named}"]
    gain = found["gain"]
    return "\n".join(
        [
            *lines,
            "",
            f"routed {found['mean']['routed']:.1%}, mean cost {found['mean']['cost']:.2f} main passes; the second "
            f"stage corrects {gain['gained']} pictures and spoils {gain['lost']}: {gain['top1']:+.2%} "
            f"[{gain['interval'][0]:+.2%}, {gain['interval'][1]:+.2%}] top 1",
        ]
    )


def _begin(fold: Fold, run: Path, steps: Sequence[str]) -> None:
    """Write a fold's manifest and its steps, or check that they are those that it was begun with."""
    manifest, kept = run / "data.csv", run / "pipeline.json"
    if not kept.exists():
        run.mkdir(parents=True, exist_ok=True)
        write_pictures(manifest, fold.given)
        write_json(kept, list(steps))
        return
    seen = [(picture.path.resolve(), picture.split) for picture in labelled_pictures(manifest)]
    if json.loads(kept.read_bytes()) != list(steps) or seen != [(p.path.resolve(), p.split) for p in fold.given]:
        raise CanonistiaError(f"{run} was begun with other steps or pictures; choose another --out")


def _run_steps(run: Path, steps: Sequence[str], call: Call) -> None:
    done = run / "done.json"
    finished = json.loads(done.read_bytes()) if done.exists() else 0
    for number, step in enumerate(steps[finished:], start=finished + 1):
        call([word.format(data=run / "data.csv", run=run) for word in shlex.split(step)])
        write_json(done, number)


def scored(bundle: Path, pictures: Sequence[LabelledPicture], what: str) -> dict[str, Any]:
    """Return the figures of a bundle on labelled pictures; ``what`` names the work where its progress is shown."""
    engine = load_engine(str(bundle), threads=1)
    paths = track([picture.path for picture in pictures], what)
    return evaluate(engine, paths, [picture.label for picture in pictures], workers=processors()).report()
