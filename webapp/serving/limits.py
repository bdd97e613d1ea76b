"""Limits of the process: open files, freed memory that it holds on to, memory that bundles take."""

import ctypes
import resource
import sys
from collections.abc import Iterable

from cascade.bundle.manifest import Manifest
from cascade.errors import CanonistiaError

# Loaded and warm, a bundle takes this many times the size of its files: measured with three batches of two at once.
_MEMORY_FACTOR = 10
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's mallopt
_LARGE = 4 * 2**20  # bytes


def allowed_files() -> int:
    """Return how many files may be open, after asking for as many as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def give_back_freed_memory() -> None:
    """Have glibc return large freed blocks to the system at once.

    By itself it raises that threshold to the largest block it has seen freed, and a service that was sent a few large
    photographs would keep their memory for ever.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt:
            mallopt(_MMAP_THRESHOLD, _LARGE)


def memory_of(manifest: Manifest) -> int:
    """Return about how many bytes a bundle takes when it is loaded."""
    return _MEMORY_FACTOR * sum(file.size for file in manifest.files)


def check_memory(manifests: Iterable[Manifest], bound: int) -> None:
    """Raise CanonistiaError unless each bundle fits into so many bytes beside the first, which always stays."""
    first, *others = (memory_of(manifest) for manifest in manifests)
    needed = first + max(others, default=0)
    if needed > bound:
        raise CanonistiaError(
            f"these bundles take about {needed // 2**20 + 1} MB at least, and --memory allows {bound // 2**20}; "
            "allow as much, or serve fewer"
        )
