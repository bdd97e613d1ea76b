"""The service: the bundles that are served; loaded when needed, swapped without a pause."""

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cascade.bundle.manifest import MANIFEST, Manifest
from cascade.bundle.reading import Bundle, BundleError, read_bundle
from cascade.inference.engine import Engine
from cascade.threads import processors
from webapp.problems import Problem
from webapp.serving.batcher import BATCH_SIZE, Batcher
from webapp.serving.limits import check_names, memory_of, share_of_cores
from webapp.serving.metrics import Metrics
from webapp.serving.statistics import Totals

Identity = tuple[tuple[str, tuple[int, int, int]], ...]  # of each file: inode, size in bytes, time of change in ns

_LOG = logging.getLogger("canonistia.service")


class Served:
    """One loaded bundle with its batcher; a request uses the same one from start to end."""

    def __init__(self, bundle: Bundle, metrics: Metrics, threads: int | None, workers: int = 1) -> None:
        cores = threads or processors()
        self.engine = Engine(bundle, cores)
        self.engine.self_test()
        throughput_engine = self.engine if cores == 1 else Engine(bundle, 1)
        throughput_engine.self_test(BATCH_SIZE)
        self.manifest = bundle.manifest
        self.sha256 = bundle.sha256
        self.name = bundle.manifest.name
        # One batch more than cores keeps the cores busy while the answers of a batch are delivered.
        self.batcher = Batcher(self.engine, throughput_engine, share_of_cores(workers, cores) + 1, metrics)
        self.users = 0
        self.retired = False


class Service:
    """Several bundles by name; the first is the default and stays loaded.

    Parameters
    ----------
    folders
        The bundles' folders.
    memory
        Bytes that loaded bundles may take together (see :func:`webapp.serving.limits.memory_of`); when they take more,
        the least recently used one is unloaded, except the first. None: no limit.
    workers
        How many processes share the cores. A picture that comes alone still has all of them.

    Raises
    ------
    BundleError
        A bundle is refused, or two bundles have the same name.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        metrics: Metrics,
        *,
        threads: int | None = None,
        memory: int | None = None,
        workers: int = 1,
    ) -> None:
        bundles = [read_bundle(folder) for folder in folders]
        self.names = tuple(bundle.manifest.name for bundle in bundles)
        check_names(self.names)
        self._bundles = dict(zip(self.names, bundles, strict=True))
        self._refusals: dict[str, str] = {}  # of the last reload of each bundle
        self._identities = {name: _file_identity(bundle.folder) for name, bundle in self._bundles.items()}
        self._metrics, self._memory = metrics, memory
        self._threads, self._workers = threads, workers
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one bundle is loaded at a time, to limit the memory
        self._loaded: OrderedDict[str, Served] = OrderedDict()  # least recently used first
        self._loaded[self.default] = Served(bundles[0], metrics, threads, workers)

    @property
    def default(self) -> str:
        """Return the name of the bundle that answers requests without a model name."""
        return self.names[0]

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all bundles, in the order given."""
        return [self._bundles[name].manifest for name in self.names]

    def bundle(self, name: str) -> Bundle:
        """Return a bundle by its name, loaded or not; Problem ``no_model`` if there is none."""
        if name not in self._bundles:
            raise Problem("no_model", f"No model of that name is served here; choose one of {', '.join(self.names)}.")
        return self._bundles[name]

    def is_loaded(self, name: str) -> bool:
        """Return whether a bundle is loaded and answers at once."""
        return name in self._loaded

    def is_ready(self, name: str) -> bool:
        """Return whether a bundle answers, at once or after loading."""
        return self.is_loaded(name) or _file_identity(self.bundle(name).folder) is not None

    def totals(self, name: str) -> Totals:
        """Return what a bundle did since it was loaded; zeros where it is not loaded."""
        served = self._loaded.get(name)
        return served.batcher.statistics.totals() if served else Totals()

    @contextmanager
    def use(self, name: str | None = None) -> Iterator[Served]:
        """Yield a loaded bundle; it is not closed while it is used.

        Raises
        ------
        Problem
            ``no_model`` for a name that is not served.
        """
        name = name or self.default
        self.bundle(name)
        served = self._acquire(name)
        try:
            yield served
        finally:
            with self._lock:
                served.users -= 1
                last = served.retired and not served.users
            if last:
                served.batcher.close()

    def _acquire(self, name: str) -> Served:
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
                        raise Problem("loading", "This model cannot be loaded now; try another one.", 30) from error

    def _load(self, name: str) -> None:
        """Load the bundle from its folder, test it, and replace the one that answers now."""
        folder = self._bundles[name].folder
        identity = _file_identity(folder)
        bundle = read_bundle(folder)
        if bundle.manifest.name != name:
            raise BundleError(f"{folder} holds the bundle {bundle.manifest.name}, not {name}; restart to serve it")
        with self._lock:
            idle = self._unload_for(name, memory_of(bundle.manifest))
        self._close(idle)
        fresh = Served(bundle, self._metrics, self._threads, self._workers)
        with self._lock:
            old = [self._loaded.pop(name)] if name in self._loaded else []
            self._loaded[name] = fresh
            self._bundles[name] = bundle
            self._identities[name] = identity
            idle = [served for served in old if self._retire(served)]
        self._close(idle)

    def _unload_for(self, name: str, wanted: int) -> list[Served]:
        """Unload bundles, the least recently used first, until ``wanted`` bytes fit; return those not in use."""
        idle = []
        for other in list(self._loaded):
            taken = sum(memory_of(served.manifest) for served in self._loaded.values())
            if self._memory is None or taken + wanted <= self._memory:
                break
            if other not in (name, self.default):
                served = self._loaded.pop(other)
                idle += [served] if self._retire(served) else []
        return idle

    @staticmethod
    def _close(idle: Sequence[Served]) -> None:
        for served in idle:
            served.batcher.close()

    @staticmethod
    def _retire(served: Served) -> bool:
        served.retired = True
        return not served.users

    def close(self) -> None:
        """Answer the queued pictures, and stop."""
        for served in self._loaded.values():
            served.batcher.close()

    def reload(self, changed_only: bool = False) -> None:
        """Reload the loaded bundles from their folders; if a new one is refused, the old one stays in use."""
        for name in list(self._loaded):
            identity = _file_identity(self._bundles[name].folder)
            if changed_only and identity in (None, self._identities[name]):
                continue
            try:
                with self._loading:
                    if name in self._loaded:  # it may have been unloaded meanwhile
                        self._load(name)
            except BundleError as error:
                # Try again after the next change of any file: it may be a copy that is not complete yet.
                self._identities[name] = identity
                self._metrics.reloads.labels(name, "refused").inc()
                if self._refusals.get(name) != str(error):
                    _LOG.error("the new %s is refused, the old one stays in use: %s", name, error)
                self._refusals[name] = str(error)
            else:
                self._refusals.pop(name, None)
                self._metrics.reloads.labels(name, "loaded").inc()
                _LOG.warning("%s was reloaded", name)


def _file_identity(folder: Path) -> Identity | None:
    """Return a value that changes with any file of a bundle; None if there is no bundle.

    A file that appears or disappears meanwhile gives another value the next time.
    """
    found: dict[str, tuple[int, int, int]] = {}
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return tuple(found.items()) if str(folder / MANIFEST) in found else None
