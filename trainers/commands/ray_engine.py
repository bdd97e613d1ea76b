"""Submodels trained side by side with Ray, on one machine or a cluster that shares the run's folder."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import ray

from cascade.errors import CanonistiaError
from trainers.commands.submodel import Prepared, train_submodel

RETRIES = 3  # of a submodel whose worker died


def train_side_by_side(prepared: Prepared, labels: Sequence[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Train submodels, one a task, and yield each with its scores as it is done.

    The cluster of ``$RAY_ADDRESS`` is used, else one of this machine's processors. A submodel whose worker dies is
    begun again, from its last saved state, up to three times.

    Raises
    ------
    CanonistiaError
        A worker died too often, or a training failed.
    """
    started = not ray.is_initialized()
    if started:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    try:
        shared = ray.put(replace(prepared, out=prepared.out.resolve(), resume=True))
        train = ray.remote(_train).options(max_retries=RETRIES, num_cpus=1)
        waiting = {train.remote(shared, label, os.environ.get("CANONISTIA_CACHE")): label for label in labels}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), _result(done)
    finally:
        if started:
            ray.shutdown()


def _train(prepared: Prepared, label: str, cache: str | None) -> dict[str, float]:
    if cache:
        os.environ["CANONISTIA_CACHE"] = cache
    return train_submodel(prepared, label)


def _result(done: "ray.ObjectRef[dict[str, float]]") -> dict[str, float]:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise CanonistiaError(str(error.cause)) from error
    except ray.exceptions.WorkerCrashedError as error:
        raise CanonistiaError(
            f"the worker of a submodel died {RETRIES + 1} times; look at its machine's memory, and go on with --resume"
        ) from error
