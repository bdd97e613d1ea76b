"""The service: the bundles that are served, loaded at need, swapped without a pause."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cascade.bundle import MANIFEST, Bundle, BundleError, Manifest, read_bundle
from cascade.engine import Engine
from webapp.batcher import BATCH_SIZE, Batcher
from webapp.metrics import Metrics
from webapp.problems import Problem

# Loaded and warm, a bundle takes this many times the size of its files: measured with batches of eight.
MEMORY_FACTOR = 6

_LOG = logging.getLogger("canonistia.service")


class Served:
    """One loaded bundle with its batcher. A request that began with it ends with it."""

    def __init__(self, bundle: Bundle, metrics: Metrics, linger: float, threads: int | None) -> None:
        self.engine = Engine(bundle, threads)
        self.engine.self_test(BATCH_SIZE)
        self.manifest = bundle.manifest
        self.sha256 = bundle.sha256
        self.name = bundle.manifest.name
        self.batcher = Batcher(self.engine, metrics, linger)
        self.users = 0
        self.retired = False

    @property
    def memory(self) -> int:
        """Return about how many bytes it takes."""
        return MEMORY_FACTOR * sum(file.size for file in self.manifest.files)


class Service:
    """Several bundles by name; the first is the default and stays loaded.

    Parameters
    ----------
    folders
        The bundles' folders.
    memory
        Bytes that loaded bundles may take together (see ``MEMORY_FACTOR``); the one used longest ago makes room.
        None for no bound.

    Raises
    ------
    BundleError
        A bundle is refused, or two have one name.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        metrics: Metrics,
        *,
        linger: float = 0.004,
        threads: int | None = None,
        memory: int | None = None,
    ) -> None:
        bundles = [read_bundle(folder) for folder in folders]
        self.names = tuple(bundle.manifest.name for bundle in bundles)
        if len(set(self.names)) < len(self.names):
            raise BundleError(f"the bundles are named {', '.join(self.names)}; serve bundles of different names")
        self._folders = dict(zip(self.names, folders, strict=True))
        self._manifests = {bundle.manifest.name: bundle.manifest for bundle in bundles}
        self._marks = {name: _mark(folder) for name, folder in self._folders.items()}
        self._metrics, self._linger, self._threads, self._memory = metrics, linger, threads, memory
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one bundle is loaded at a time: two at once would take both memories
        self._loaded: OrderedDict[str, Served] = OrderedDict()  # the one used last is last
        self._loaded[self.default] = Served(bundles[0], metrics, linger, threads)

    @property
    def default(self) -> str:
        """Return the name of the bundle that answers where none is named."""
        return self.names[0]

    def manifests(self) -> list[Manifest]:
        """Return the manifest of each bundle, in the order given."""
        return [self._manifests[name] for name in self.names]

    def is_loaded(self, name: str) -> bool:
        """Return whether a bundle would answer at once."""
        return name in self._loaded

    @contextmanager
    def use(self, name: str | None = None) -> Iterator[Served]:
        """Give a loaded bundle, and keep it for as long as it is used.

        Raises
        ------
        Problem
            ``no_model`` for a name that is not served.
        """
        name = name or self.default
        if name not in self._folders:
            raise Problem("no_model", f"No model of that name is served here; there is {', '.join(self.names)}.")
        served = self._take(name)
        try:
            yield served
        finally:
            with self._lock:
                served.users -= 1
                last = served.retired and not served.users
            if last:
                served.batcher.close()

    def _take(self, name: str) -> Served:
        while True:
            with self._lock:
                if served := self._loaded.get(name):
                    self._loaded.move_to_end(name)
                    served.users += 1
                    return served
            with self._loading:
                if name not in self._loaded:
                    try:
                        self._load(name)
                    except BundleError as error:
                        _LOG.error("%s cannot be loaded: %s", name, error)
                        raise Problem("loading", "This model cannot be loaded now; try another.", 30) from error

    def _load(self, name: str) -> None:
        """Load a bundle that lies in its folder, test it, and put it in the place of the one that answers now."""
        mark = _mark(self._folders[name])
        bundle = read_bundle(self._folders[name])
        if bundle.manifest.name != name:
            raise BundleError(f"the bundle in {self._folders[name]} is named {bundle.manifest.name} now, not {name}")
        fresh = Served(bundle, self._metrics, self._linger, self._threads)
        with self._lock:
            retiring = [self._loaded.pop(name)] if name in self._loaded else []
            self._loaded[name] = fresh
            self._manifests[name] = bundle.manifest
            self._marks[name] = mark
            retiring += self._over_memory(name)
            idle = [served for served in retiring if self._retire(served)]
        for served in idle:
            served.batcher.close()

    def _over_memory(self, kept: str) -> list[Served]:
        gone = []
        for name in list(self._loaded):
            if self._memory is None or sum(served.memory for served in self._loaded.values()) <= self._memory:
                break
            if name not in (kept, self.default):
                gone.append(self._loaded.pop(name))
        return gone

    @staticmethod
    def _retire(served: Served) -> bool:
        served.retired = True
        return not served.users

    def close(self) -> None:
        """Answer what is queued, and stop."""
        for served in self._loaded.values():
            served.batcher.close()

    def reload(self, changed_only: bool = False) -> None:
        """Load the loaded bundles anew from their folders; one that is refused leaves the old one answering."""
        for name in list(self._loaded):
            folder = self._folders[name]
            mark = _mark(folder)
            if changed_only and mark in (None, self._marks[name]):
                continue
            try:
                with self._loading:
                    self._load(name)
            except BundleError as error:
                self._marks[name] = mark  # not tried again before it changes again
                self._metrics.reloads.labels(name, "refused").inc()
                _LOG.error("the new %s is refused, the old one goes on: %s", name, error)
            else:
                self._metrics.reloads.labels(name, "loaded").inc()
                _LOG.warning("%s was loaded anew", name)


def _mark(folder: Path) -> tuple[int, int, int] | None:
    """Return what changes when a bundle is replaced; None while there is none."""
    try:
        status = (folder / MANIFEST).stat()
    except FileNotFoundError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)
