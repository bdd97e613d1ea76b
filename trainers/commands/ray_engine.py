"""Submodels trained in parallel with Ray, on one machine or a cluster that shares the run's folder."""

import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import ray

from cascade.batch.cluster_connection import connect
from cascade.errors import CanonistiaError
from trainers.commands.submodel import Prepared

RETRIES = 3  # of a submodel whose worker died


def train_side_by_side(prepared: Prepared, labels: Sequence[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Train submodels, one per task, and yield each with its scores when it is done.

    The cluster of ``$RAY_ADDRESS`` is used, else one of this machine's processors. A submodel whose worker dies is
    started again from its last saved state, up to three times.

    Raises
    ------
    CanonistiaError
        No cluster answers at ``$RAY_ADDRESS``, a worker died too often, or a training failed.
    """
    started = not ray.is_initialized()
    if started:
        connect()
    # The task is sent as code and its argument as bytes, so that a worker imports nothing before the task begins.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        shared = ray.put(pickle.dumps(replace(prepared, out=prepared.out.resolve(), resume=True)))
        train = ray.remote(_train).options(max_retries=RETRIES, num_cpus=1)
        cache, current = os.environ.get("CANONISTIA_CACHE"), os.getcwd()
        unwanted = None if current in sys.path else current
        waiting = {train.remote(shared, label, cache, unwanted): label for label in labels}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), _result(done)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        if started:
            ray.shutdown()


def _train(prepared: bytes, label: str, cache: str | None, unwanted: str | None) -> dict[str, float]:
    # Ray adds the driver's current folder to the path of its workers, and a file in it may be named as a package of
    # canonistia.
    sys.path[:] = [folder for folder in sys.path if folder != unwanted]
    if cache:
        os.environ["CANONISTIA_CACHE"] = cache
    from trainers.commands.submodel import train_submodel

    return train_submodel(pickle.loads(prepared), label)


def _result(done: "ray.ObjectRef[dict[str, float]]") -> dict[str, float]:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise CanonistiaError(str(error.cause)) from error
    except ray.exceptions.WorkerCrashedError as error:
        raise CanonistiaError(
            f"the worker of a submodel died {RETRIES + 1} times; look at its machine's memory, and continue with "
            "--resume"
        ) from error
