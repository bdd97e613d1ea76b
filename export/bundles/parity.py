"""Parity: the bundle must answer as PyTorch does, on real pictures, through the whole path from file to answer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import readable_batches
from cascade.inference.engine import Engine
from cascade.rules.cascade import CascadeOutput, known_answers, run_cascade
from cascade.rules.probabilities import top_two
from export.fitting.selection import FittedCascade
from export.fitting.stage_logits import Answers
from trainers.progress import track

RTOL, ATOL = 1e-3, 1e-4  # of logits
PROBABILITY_ATOL = 2e-3


class ParityError(CanonistiaError):
    """The exported models disagree with the trained ones."""


def check_parity(engine: Engine, paths: Sequence[Path], trained: Answers, fitted: FittedCascade) -> None:
    """Compare a bundle with the PyTorch logits of the same pictures.

    Raises
    ------
    ParityError
        A logit differs by more than ``RTOL`` and ``ATOL``, a probability by more than ``PROBABILITY_ATOL``, or a
        picture gets another answer, stage or mark; the message names the worst picture.
    """
    main, far, submodels, outputs = [], [], [], []
    for pictures in readable_batches(engine, track(paths, "checking parity")):
        everything = np.ones((len(pictures), len(engine.classes)), dtype=bool)
        logits, distance = engine.main_outputs(pictures, "logits", "distance")
        main.append(logits)
        far.append(distance)
        submodels.append(engine.ask_submodels(pictures, everything, "logit"))
        outputs.append(engine.run(pictures))
    _check_logits("main model", np.concatenate(main), trained.main, paths)
    _check_logits("main model's distance", np.concatenate(far)[:, None], trained.distance[:, None], paths)
    _check_logits("submodels", np.concatenate(submodels), trained.submodels, paths)
    _check_answers(outputs, reference(trained, fitted), paths)


def reference(trained: Answers, fitted: FittedCascade) -> CascadeOutput:
    """Return what the cascade says when PyTorch's logits go through the same rules."""
    stages = trained.calibrated(fitted.calibrators)
    return run_cascade(fitted.rules, stages.main, stages.distance, known_answers(stages.submodels))


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


def _check_answers(outputs: Sequence[CascadeOutput], expected: CascadeOutput, paths: Sequence[Path]) -> None:
    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(output, name) for output in outputs])

    probabilities = joined("probabilities")
    gap = np.abs(probabilities - expected.probabilities).max(axis=1)  # (N,)
    differs = (top_two(probabilities) != top_two(expected.probabilities)).any(axis=1)
    # Two classes that are equal but for rounding may stand in either order.
    tied = _is_tied(probabilities) & _is_tied(expected.probabilities)
    wrong = (differs & ~tied) | (gap > PROBABILITY_ATOL)
    wrong |= joined("routed") != expected.routed
    # A doubt of just 1 may be rounded to either side of the mark.
    wrong |= ~np.isclose(joined("doubt"), expected.doubt, rtol=PROBABILITY_ATOL, atol=PROBABILITY_ATOL)
    if wrong.any():
        worst = int(np.where(wrong, gap, -1).argmax())
        raise ParityError(
            f"the bundle and PyTorch give {int(wrong.sum())} of {len(paths)} pictures another answer or stage, "
            f"worst {paths[worst]} (probabilities {gap[worst]:.2g} apart); no bundle was written"
        )


def _is_tied(probabilities: np.ndarray) -> np.ndarray:
    three = -np.sort(-probabilities, axis=1)[:, :3]  # (N, up to 3)
    return np.any(-np.diff(three, axis=1) < ATOL, axis=1)
