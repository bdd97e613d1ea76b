"""Fitting decision rules: how the probabilities of both stages are combined for a routed picture."""

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
    """Return the named rule, fitted on the ``routed`` pictures (N,) bool if it has weights to fit."""
    if name == "highest_submodel":
        return HighestSubmodel()
    if name == "product":
        return Product()
    # Pictures whose true class is not asked about say nothing about the weights: decide() leaves that class as it is.
    asked = candidate_classes(stages.main, candidates)  # (N, K)
    used = routed & asked[np.arange(len(stages.targets)), stages.targets]
    if not used.any():
        return LogLinear(main_weight=1.0, submodel_weight=1.0)
    true = np.arange(int(used.sum())), stages.targets[used]
    terms = np.stack([np.log(np.maximum(stages.main[used], 1e-12)), log_odds(stages.submodels[used])])  # (2, M, K)
    left_out = np.where(asked[used], 0.0, -np.inf)  # (M, K)

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.tensordot(weights, terms, axes=1) + left_out, axis=1)  # (M, K)
        errors = np.exp(logs)
        errors[true] -= 1
        # A weak pull towards the plain sum: a few pictures alone could give extreme weights.
        pull = weights - 1
        return float(-logs[true].sum() + pull @ pull), np.einsum("tmk,mk->t", terms, errors) + 2 * pull

    weights = minimize(loss_and_gradient, np.ones(2), jac=True, method="L-BFGS-B", bounds=[(0, 5), (0, 5)]).x
    return LogLinear(main_weight=round(float(weights[0]), 4), submodel_weight=round(float(weights[1]), 4))
