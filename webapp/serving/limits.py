"""Limits of the processes: open files, freed memory that they keep, bundles and workers that go together."""

import ctypes
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from PIL import AvifImagePlugin

from cascade.bundle.manifest import Manifest
from cascade.bundle.reading import BundleError
from cascade.cgroups import group_limits
from cascade.errors import CanonistiaError
from cascade.threads import processors

# A loaded bundle takes about this many times the size of its files: measured with three concurrent batches of two.
_MEMORY_FACTOR = 10
_PROCESS_BYTES = 100 * 2**20  # of a worker without any bundle
_MEMORY_FOLDER = "/dev/shm"
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's mallopt
_LARGE = 4 * 2**20  # bytes


def allowed_files() -> int:
    """Raise the limit of open files to the highest that the system allows, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 65536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def heartbeat_folder() -> str:
    """Return a folder for the file by which a worker shows that it lives; it is in memory where the system has that.

    Raises
    ------
    CanonistiaError
        No folder for temporary files can be written.
    """
    for folder in (_MEMORY_FOLDER, *_temporary_folders()):
        with suppress(OSError), tempfile.TemporaryFile(dir=folder):
            return folder
    raise CanonistiaError("no folder for temporary files can be written; set TMPDIR to one that can")


def _temporary_folders() -> list[str]:
    try:
        return [tempfile.gettempdir()]
    except FileNotFoundError:  # not one of those that it tries
        return []


def return_freed_memory() -> None:
    """Make glibc return large freed blocks to the system at once.

    By default, glibc raises this threshold to the size of the largest freed block, and a service would keep the memory
    of a few large photographs forever.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt:
        mallopt(_MMAP_THRESHOLD, _LARGE)


def return_freed_pieces() -> None:
    """Return the small freed blocks to the system, too: each thread would keep those of its heaviest picture."""
    trim = _of_glibc("malloc_trim")
    if trim:
        trim(0)


def _of_glibc(name: str) -> Callable[..., object] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None  # musl has none of them


def decode_with_one_thread() -> None:
    """Make the decoder of AVIF, the only one with threads of its own, leave the other cores to other pictures."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def share_of_cores(workers: int, cores: int | None = None) -> int:
    """Return how many of the cores (by default all of the machine) each worker keeps busy."""
    return max(1, (cores or processors()) // workers)


def memory_of(manifest: Manifest) -> int:
    """Return about how many bytes a loaded bundle takes."""
    return _MEMORY_FACTOR * sum(file.size for file in manifest.files)


def check_names(names: Sequence[str]) -> None:
    """Raise BundleError unless all bundles have names of their own."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BundleError(f"several bundles are named {', '.join(twice)}; serve bundles with different names")


def check_memory(manifests: Iterable[Manifest], bound: int, workers: int = 1) -> None:
    """Raise CanonistiaError unless each bundle fits beside the first, which stays loaded, into each worker's share."""
    first, *others = (memory_of(manifest) for manifest in manifests)
    needed = workers * (first + max(others, default=0))
    if needed > bound:
        where, fewer = (f" in {workers} workers", " with fewer --workers") if workers > 1 else ("", "")
        raise CanonistiaError(
            f"these bundles take about {needed // 2**20 + 1} MB at least{where}, and --memory allows {bound // 2**20}; "
            f"raise --memory, or serve smaller bundles{fewer}"
        )


def check_workers(default: Manifest, workers: int, machine: int) -> None:
    """Raise CanonistiaError unless that many workers fit into ``machine`` bytes, each with the default bundle loaded.

    A single worker is never refused: the estimate is not that good.
    """
    each = _PROCESS_BYTES + memory_of(default)
    if workers > 1 and workers * each > machine:
        possible = max(1, machine // each)
        raise CanonistiaError(
            f"{workers} workers take about {workers * each // 2**20} MB, and this machine has {machine // 2**20} MB; "
            f"use at most --workers {possible}"
        )


def machine_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process and its children may use: all, or less if a cgroup limits them."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = group_limits("memory", "memory.max", ("memory.limit_in_bytes",), root)
    return min([installed, *(int(words[0]) for words in limits if words and words[0].isdigit())])
