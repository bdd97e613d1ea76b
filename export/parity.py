"""Parity: the bundle must answer as PyTorch does, on real pictures, through the whole path from file to answer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cascade.engine import BATCH_SIZE, CascadeOutput, Engine, batches
from cascade.errors import CanonistiaError
from cascade.picture import decode
from cascade.rules import candidate_classes, decide, is_unsure, route, top_two
from export.routing import Answers, FittedCascade
from trainers.progress import track

RTOL, ATOL = 1e-3, 1e-4


class ParityError(CanonistiaError):
    """The exported models disagree with the trained ones."""


def check_parity(engine: Engine, paths: Sequence[Path], trained: Answers, fitted: FittedCascade) -> None:
    """Compare a bundle with the PyTorch logits of the same pictures.

    Raises
    ------
    ParityError
        A logit differs by more than ``RTOL`` and ``ATOL``, or a picture gets another answer or stage; the message
        names the worst picture.
    """
    everything = np.ones((BATCH_SIZE, len(engine.classes)), dtype=bool)
    main, submodels, outputs = [], [], []
    for batch in track(list(batches(paths, BATCH_SIZE)), "checking parity"):
        pictures = [decode(path) for path in batch]
        main.append(engine.main_outputs(pictures, "logits"))
        submodels.append(engine.ask_submodels(pictures, everything[: len(batch)], "logit"))
        outputs.append(engine.run(pictures))
    _check_logits("main model", np.concatenate(main), trained.main, paths)
    _check_logits("submodels", np.concatenate(submodels), trained.submodels, paths)
    _check_answers(outputs, reference(trained, fitted), paths)


def reference(trained: Answers, fitted: FittedCascade) -> CascadeOutput:
    """Return what the cascade says when PyTorch's logits go through the same rules."""
    rules = fitted.rules
    main = fitted.calibrators.main(trained.main)
    routed = route(rules.routing, main)
    asked = candidate_classes(main, rules.candidates) & routed[:, None]
    submodels = np.where(asked, fitted.calibrators.submodels(trained.submodels), np.nan)
    final, unsure = main.copy(), np.zeros(len(main), dtype=bool)
    final[routed] = decide(rules.decision, main[routed], submodels[routed])
    unsure[routed] = is_unsure(rules.unsure_below, submodels[routed])
    return CascadeOutput(main, submodels, final, routed, unsure)


def _check_logits(what: str, exported: np.ndarray, trained: np.ndarray, paths: Sequence[Path]) -> None:
    excess = np.abs(exported - trained) - (ATOL + RTOL * np.abs(trained))  # (N, K), positive beyond the tolerance
    worst = int(excess.max(axis=1).argmax())
    if excess[worst].max() > 0:
        gap = np.abs(exported[worst] - trained[worst]).max()
        raise ParityError(
            f"the exported {what} and PyTorch differ by {gap:.2g} in a logit of {paths[worst]}, expected at most "
            f"{ATOL} + {RTOL} of its size; no bundle was written"
        )


def _check_answers(outputs: Sequence[CascadeOutput], expected: CascadeOutput, paths: Sequence[Path]) -> None:
    probabilities = np.concatenate([output.probabilities for output in outputs])
    routed = np.concatenate([output.routed for output in outputs])
    gap = np.abs(probabilities - expected.probabilities).max(axis=1)  # (N,)
    differs = (top_two(probabilities) != top_two(expected.probabilities)).any(axis=1)
    # Two classes that are equal but for rounding may stand in either order.
    tied = _is_tied(probabilities) & _is_tied(expected.probabilities)
    wrong = (differs & ~tied) | (routed != expected.routed)
    if wrong.any():
        worst = int(np.where(wrong, gap, -1).argmax())
        raise ParityError(
            f"the bundle and PyTorch give {int(wrong.sum())} of {len(paths)} pictures another answer or stage, "
            f"worst {paths[worst]} (probabilities {gap[worst]:.2g} apart); no bundle was written"
        )


def _is_tied(probabilities: np.ndarray) -> np.ndarray:
    three = -np.sort(-probabilities, axis=1)[:, :3]  # (N, up to 3)
    return np.any(-np.diff(three, axis=1) < ATOL, axis=1)
