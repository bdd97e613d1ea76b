"""Limits of the process: open files, freed memory that it keeps, bundles that go together."""

import ctypes
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from PIL import AvifImagePlugin

from cascade.bundle.manifest import Manifest
from cascade.bundle.reading import BundleError
from cascade.errors import CanonistiaError

# A loaded bundle takes about this many times the size of its files: measured with three concurrent batches of two.
_MEMORY_FACTOR = 10
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


def memory_of(manifest: Manifest) -> int:
    """Return about how many bytes a loaded bundle takes."""
    return _MEMORY_FACTOR * sum(file.size for file in manifest.files)


def check_names(names: Sequence[str]) -> None:
    """Raise BundleError unless all bundles have names of their own."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BundleError(f"several bundles are named {', '.join(twice)}; serve bundles with different names")


def check_memory(manifests: Iterable[Manifest], bound: int) -> None:
    """Raise CanonistiaError unless each bundle fits into ``bound`` bytes beside the first, which stays loaded."""
    first, *others = (memory_of(manifest) for manifest in manifests)
    needed = first + max(others, default=0)
    if needed > bound:
        raise CanonistiaError(
            f"these bundles take about {needed // 2**20 + 1} MB at least, and --memory allows {bound // 2**20}; "
            "raise --memory, or serve smaller bundles"
        )
