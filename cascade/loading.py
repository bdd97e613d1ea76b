"""Loading: from a bundle's name to an engine."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cascade.bundle import find_bundle, read_bundle

if TYPE_CHECKING:
    from cascade.engine import Engine


def load_engine(model: str, threads: int | None = None) -> "Engine":
    """Return an engine for a bundle's folder or name.

    The bundle's files are hashed while the runtime is imported: both take a tenth of a second, and neither needs
    the other.

    Raises
    ------
    BundleError
        There is no such bundle, or it is damaged.
    """
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_bundle, find_bundle(model))
        from cascade.engine import Engine

        return Engine(reading.result(), threads)
