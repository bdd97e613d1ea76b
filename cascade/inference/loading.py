"""Loading: from a bundle's name to an engine."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, get_args

from cascade.bundle.lookup import find_bundle
from cascade.bundle.precision import Precision, precise_folder
from cascade.bundle.reading import Bundle, read_bundle, without_routing

if TYPE_CHECKING:
    from cascade.inference.engine import Engine
    from cascade.inference.sessions import Device


def load_bundle(model: str, precision: Precision = "float", main_only: bool = False) -> Bundle:
    """Return the bundle of a folder or a name; with ``main_only`` it routes nothing.

    Raises
    ------
    BundleError
        There is no such bundle, it is damaged, or its 8-bit form is requested and missing.
    """
    bundle = read_bundle(precise_folder(find_bundle(model), precision))
    return without_routing(bundle) if main_only else bundle


def load_engine(
    model: str | os.PathLike[str],
    threads: int | None = None,
    precision: Precision = "float",
    device: "Device" = "cpu",
    main_only: bool = False,
) -> "Engine":
    """Return an engine for a bundle's folder or name; with ``main_only`` its main model answers alone.

    The bundle's files are hashed while the runtime is imported: each takes a tenth of a second.

    Raises
    ------
    BundleError
        There is no such bundle, it is damaged, or its 8-bit form is requested and missing.
    CanonistiaError
        CUDA is requested, and this onnxruntime has none.
    TypeError, ValueError
        An argument is none that there can be.
    """
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"the model is of type {type(model).__name__}; expected a bundle's folder or its name")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"threads is {threads!r}; expected a whole number, 1 or more, or None for all processors")
    if precision not in get_args(Precision):
        raise ValueError(f"the precision is {precision!r}; expected {', '.join(get_args(Precision))}")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(load_bundle, os.fspath(model), precision, main_only)
        from cascade.inference.engine import Engine

        return Engine(reading.result(), threads, device)
