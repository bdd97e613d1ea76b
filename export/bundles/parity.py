"""Parity: on real pictures, from file to answer, the bundle must give the same results as PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import readable_batches
from cascade.inference.engine import Engine
from cascade.progress import track
from cascade.rules.another_class import another_class
from cascade.rules.cascade import CascadeOutput, known_answers, run_cascade
from cascade.rules.probabilities import top_two
from export.fitting.selection import FittedCascade
from export.fitting.stage_logits import StageLogits

RTOL, ATOL = 1e-3, 1e-4  # of logits
PROBABILITY_ATOL = 2e-3
BOTH_TOLERANCE = 5e-2


class ParityError(CanonistiaError):
    """The exported models disagree with the trained ones."""


def check_parity(engine: Engine, paths: Sequence[Path], trained: StageLogits, fitted: FittedCascade) -> None:
    """Compare a bundle's outputs with the PyTorch logits of the same pictures.

    Raises
    ------
    ParityError
        A logit differs by more than ``RTOL`` and ``ATOL``, a probability by more than ``PROBABILITY_ATOL``, or a
        picture gets another answer, stage or mark. The message names the worst picture.
    """
    main, distances, submodels, another, outputs = [], [], [], [], []
    more = ["activation_maps"] * (trained.another is not None)
    for pictures in readable_batches(engine, track(paths, "checking parity")):
        every_class = np.ones((len(pictures), len(engine.classes)), dtype=bool)
        logits, distance, *maps = engine.main_outputs(pictures, "logits", "distance", *more)
        another.extend([another_class(one) for one in maps])
        main.append(logits)
        distances.append(distance)
        submodels.append(engine.ask_submodels(pictures, every_class, "logit"))
        outputs.append(engine.run(pictures))
    _check_logits("main model", np.concatenate(main), trained.main, paths)
    _check_logits("main model's distance", np.concatenate(distances)[:, None], trained.distance[:, None], paths)
    if trained.another is not None:
        found = np.concatenate(another)[:, None]
        _check_logits("main model's evidence of another class", found, trained.another[:, None], paths)
    _check_logits("submodels", np.concatenate(submodels), trained.submodels, paths)
    _check_outputs(outputs, reference(trained, fitted), paths)


def reference(trained: StageLogits, fitted: FittedCascade) -> CascadeOutput:
    """Return the cascade's output for PyTorch's logits under the same rules."""
    stages = trained.calibrated(fitted.calibrators)
    return run_cascade(fitted.rules, stages.main, stages.distance, known_answers(stages.submodels), stages.another)


def _check_logits(what: str, exported: np.ndarray, trained: np.ndarray, paths: Sequence[Path]) -> None:
    excess = np.abs(exported - trained) - (ATOL + RTOL * np.abs(trained))  # (N, K), positive beyond the tolerance
    excess = np.where(np.isnan(excess), np.inf, excess).max(axis=1)  # (N,)
    worst = int(excess.argmax())
    if excess[worst] > 0:
        gap = np.abs(exported[worst] - trained[worst]).max()
        raise ParityError(
            f"the exported {what} and PyTorch differ by {gap:.2g} on {paths[worst]}, expected at most "
            f"{ATOL} + {RTOL} of the value; no bundle was written"
        )


def _check_outputs(outputs: Sequence[CascadeOutput], expected: CascadeOutput, paths: Sequence[Path]) -> None:
    def join(name: str) -> np.ndarray:
        return np.concatenate([getattr(output, name) for output in outputs])

    probabilities = join("probabilities")
    gap = np.abs(probabilities - expected.probabilities).max(axis=1)  # (N,)
    differs = (top_two(probabilities) != top_two(expected.probabilities)).any(axis=1)
    # Two classes whose probabilities differ only by rounding may come in either order.
    tied = _is_tied(probabilities) & _is_tied(expected.probabilities)
    wrong = (differs & ~tied) | (gap > PROBABILITY_ATOL)
    wrong |= join("routed") != expected.routed
    # Rounding may move a doubt close to 1 to either side of the mark.
    wrong |= ~np.isclose(join("doubt"), expected.doubt, rtol=PROBABILITY_ATOL, atol=PROBABILITY_ATOL)
    # So it may with the score for both, a sum of log odds; with tied classes another pair of them may be named.
    wrong |= ~np.isclose(join("both_margin"), expected.both_margin, rtol=BOTH_TOLERANCE, atol=BOTH_TOLERANCE) & ~tied
    if wrong.any():
        worst = int(np.where(wrong, gap, -1).argmax())
        raise ParityError(
            f"the bundle and PyTorch give {int(wrong.sum())} of {len(paths)} pictures another answer or stage, "
            f"worst {paths[worst]} (probabilities {gap[worst]:.2g} apart); no bundle was written"
        )


def _is_tied(probabilities: np.ndarray) -> np.ndarray:
    three = -np.sort(-probabilities, axis=1)[:, :3]  # (N, up to 3)
    return np.any(-np.diff(three, axis=1) < ATOL, axis=1)
