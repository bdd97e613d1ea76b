"""Arithmetic on probabilities that the rules share."""

import numpy as np

# Keeps a logarithm finite; far below the smallest difference that a calibrated float32 model can express.
TINY = 1e-12


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities (N, K) of logits (N, K), float32 as the logits are.

    More digits would be noise, and a routing threshold between two pictures could then hang on it.
    """
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def logsumexp(logits: np.ndarray) -> np.ndarray:
    """Return log(sum(exp(logits))) of each row of logits (N, K), (N,) float64."""
    exact = logits.astype(np.float64)
    highest = exact.max(axis=1)
    summed: np.ndarray = highest + np.log(np.exp(exact - highest[:, None]).sum(axis=1))
    return summed


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)), finite at 0 and 1; NaN stays NaN."""
    kept = np.clip(probabilities, TINY, 1 - TINY)
    return np.log(kept) - np.log1p(-kept)


def top_two(probabilities: np.ndarray) -> np.ndarray:
    """Return the indices of the two most likely classes, most likely first, (N, 2); ties go to the earlier class."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
