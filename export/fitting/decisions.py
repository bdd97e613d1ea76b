"""Fitting decision rules: how the answers of both stages are combined for a routed picture."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from cascade.rules.cascade import candidate_classes
from cascade.rules.decision import Decision, HighestSubmodel, LogLinear, Product
from cascade.rules.probabilities import log_odds
from export.fitting.stage_logits import Stages

FITTED_COMBINATION = "log_linear"
DECISIONS = ("product", "highest_submodel", FITTED_COMBINATION)


def fit_decision(name: str, stages: Stages, routed: np.ndarray, candidates: int) -> Decision:
    """Return the named rule, fitted on the routed rows (N,) bool where it has anything to fit."""
    if name == "highest_submodel":
        return HighestSubmodel()
    if name == "product":
        return Product()
    # Only pictures whose true class is asked about say something of the weights: decide() moves nothing else.
    asked = candidate_classes(stages.main, candidates)  # (N, K)
    rows = routed & asked[np.arange(len(stages.targets)), stages.targets]
    if not rows.any():
        return LogLinear(main_weight=1.0, submodel_weight=1.0)
    true = np.arange(int(rows.sum())), stages.targets[rows]
    terms = np.stack([np.log(np.maximum(stages.main[rows], 1e-12)), log_odds(stages.submodels[rows])])  # (2, M, K)
    left_out = np.where(asked[rows], 0.0, -np.inf)  # (M, K)

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.tensordot(weights, terms, axes=1) + left_out, axis=1)  # (M, K)
        errors = np.exp(logs)
        errors[true] -= 1
        # A weak pull to the plain sum keeps a handful of pictures from giving absurd weights.
        pull = weights - 1
        return float(-logs[true].sum() + pull @ pull), np.einsum("tmk,mk->t", terms, errors) + 2 * pull

    weights = minimize(loss_and_gradient, np.ones(2), jac=True, method="L-BFGS-B", bounds=[(0, 5), (0, 5)]).x
    return LogLinear(main_weight=round(float(weights[0]), 4), submodel_weight=round(float(weights[1]), 4))
