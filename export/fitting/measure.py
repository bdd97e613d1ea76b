"""Measuring a cascade on validation pictures, out of fold: nothing is fitted on the pictures that are scored."""

from dataclasses import dataclass

import msgspec
import numpy as np
from sklearn.metrics import average_precision_score, precision_score, recall_score

from cascade.bundle.manifest import Accuracy, Measured, ReliabilityBin
from cascade.evaluation.conformal import COVERAGES, conformal_limit
from cascade.evaluation.metrics import accuracy_summary, confusion, reliability
from cascade.rules.cascade import CascadeOutput
from export.fitting.selection import Terms, out_of_fold
from export.fitting.stage_logits import StageLogits

EPOCH_NOTE = " The main model's epoch was chosen on the same pictures."
METHOD = "Calibration, routing, decision and mark were fitted out of fold (nested five-fold cross-validation)."


@dataclass(frozen=True)
class BinaryFigures:
    """How well one submodel separates its class from all others."""

    average_precision: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Measurement:
    """All figures of a bundle: of the cascade, of each submodel, and the limits of the prediction sets by coverage."""

    measured: Measured
    submodels: list[BinaryFigures]
    prediction_sets: dict[str, float]
    answers: CascadeOutput  # out of fold, about every picture


def measure(logits: StageLogits, terms: Terms, split: str, seen_in_training: int, note: str = "") -> Measurement:
    """Return the figures of nested cross-validation; ``note`` is appended to the description of the method."""
    predicted = out_of_fold(logits, terms)
    cascade, targets = predicted.cascade, logits.targets
    measured = Measured(
        split=split,
        method=METHOD + note,
        pictures=len(targets),
        seen_in_training=seen_in_training,
        main=_accuracy(cascade.main_alone, targets),
        submodels=_accuracy(predicted.submodels, targets),
        cascade=_accuracy(cascade.probabilities, targets),
        routed=float(cascade.routed.mean()),
        unsure=float(cascade.unsure.mean()),
        both=float(cascade.both.mean()),
        cost=terms.cost(cascade.routed),
        confusion=confusion(cascade.probabilities, targets).tolist(),
        reliability=_reliability(cascade.probabilities, targets),
    )
    limits = {f"{coverage:.2f}": conformal_limit(cascade.probabilities, targets, coverage) for coverage in COVERAGES}
    return Measurement(measured, _binary_figures(predicted.submodels, targets), limits, cascade)


def _accuracy(probabilities: np.ndarray, targets: np.ndarray) -> Accuracy:
    return msgspec.convert(accuracy_summary(probabilities, targets), Accuracy)


def _reliability(probabilities: np.ndarray, targets: np.ndarray) -> list[ReliabilityBin]:
    bins = zip(*reliability(probabilities, targets), strict=True)
    return [
        ReliabilityBin(float(confidence), float(accuracy), int(pictures))
        for pictures, confidence, accuracy in bins
        if pictures
    ]


def _binary_figures(submodels: np.ndarray, targets: np.ndarray) -> list[BinaryFigures]:
    figures = []
    for label, column in enumerate(submodels.T):
        is_class, says_yes = targets == label, column >= 0.5
        figures.append(
            BinaryFigures(
                float(average_precision_score(is_class, column)),
                float(precision_score(is_class, says_yes, zero_division=0)),
                float(recall_score(is_class, says_yes, zero_division=0)),
            )
        )
    return figures
