"""The service: the bundles that are served, loaded at need, swapped without a pause."""

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
from webapp.serving.limits import memory_of
from webapp.serving.metrics import Metrics

_LOG = logging.getLogger("canonistia.service")


class Served:
    """One loaded bundle with its batcher. A request that began with it ends with it."""

    def __init__(self, bundle: Bundle, metrics: Metrics, threads: int | None) -> None:
        cores = threads or processors()
        self.engine = Engine(bundle, cores)
        self.engine.self_test()
        crowd = self.engine if cores == 1 else Engine(bundle, 1)
        crowd.self_test(BATCH_SIZE)
        self.manifest = bundle.manifest
        self.sha256 = bundle.sha256
        self.name = bundle.manifest.name
        # One lane more than cores: they have work while one batch is handed out.
        self.batcher = Batcher(self.engine, crowd, cores + 1, metrics)
        self.users = 0
        self.retired = False


class Service:
    """Several bundles by name; the first is the default and stays loaded.

    Parameters
    ----------
    folders
        The bundles' folders.
    memory
        Bytes that loaded bundles may take together (see :func:`webapp.serving.limits.memory_of`); the one used longest
        ago makes room, but for the first.
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
        threads: int | None = None,
        memory: int | None = None,
    ) -> None:
        bundles = [read_bundle(folder) for folder in folders]
        self.names = tuple(bundle.manifest.name for bundle in bundles)
        if len(set(self.names)) < len(self.names):
            raise BundleError(f"the bundles are named {', '.join(self.names)}; serve bundles of different names")
        self._bundles = dict(zip(self.names, bundles, strict=True))
        self._marks = {name: _mark(bundle.folder) for name, bundle in self._bundles.items()}
        self._metrics, self._threads, self._memory = metrics, threads, memory
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one bundle is loaded at a time: two at once would take both memories
        self._loaded: OrderedDict[str, Served] = OrderedDict()  # the one used last is last
        self._loaded[self.default] = Served(bundles[0], metrics, threads)

    @property
    def default(self) -> str:
        """Return the name of the bundle that answers where none is named."""
        return self.names[0]

    def manifests(self) -> list[Manifest]:
        """Return the manifest of each bundle, in the order given."""
        return [self._bundles[name].manifest for name in self.names]

    def bundle(self, name: str) -> Bundle:
        """Return a bundle by its name, loaded or not; Problem ``no_model`` where there is none."""
        if name not in self._bundles:
            raise Problem("no_model", f"No model of that name is served here; there is {', '.join(self.names)}.")
        return self._bundles[name]

    def is_loaded(self, name: str) -> bool:
        """Return whether a bundle would answer at once."""
        return name in self._loaded

    def is_ready(self, name: str) -> bool:
        """Return whether a bundle would answer, at once or after it was loaded."""
        return self.is_loaded(name) or _mark(self.bundle(name).folder) is not None

    @contextmanager
    def use(self, name: str | None = None) -> Iterator[Served]:
        """Give a loaded bundle, and keep it for as long as it is used.

        Raises
        ------
        Problem
            ``no_model`` for a name that is not served.
        """
        name = name or self.default
        self.bundle(name)
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
        folder = self._bundles[name].folder
        mark = _mark(folder)
        bundle = read_bundle(folder)
        if bundle.manifest.name != name:
            raise BundleError(f"the bundle in {folder} is named {bundle.manifest.name} now, not {name}")
        with self._lock:
            leaving = self._making_room(name, memory_of(bundle.manifest))
        self._close(leaving)
        fresh = Served(bundle, self._metrics, self._threads)
        with self._lock:
            old = [self._loaded.pop(name)] if name in self._loaded else []
            self._loaded[name] = fresh
            self._bundles[name] = bundle
            self._marks[name] = mark
            leaving = [served for served in old if self._retire(served)]
        self._close(leaving)

    def _making_room(self, name: str, wanted: int) -> list[Served]:
        """Take bundles out, the one used longest ago first; return those that nobody uses."""
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
        """Answer what is queued, and stop."""
        for served in self._loaded.values():
            served.batcher.close()

    def reload(self, changed_only: bool = False) -> None:
        """Load the loaded bundles anew from their folders; one that is refused leaves the old one answering."""
        for name in list(self._loaded):
            mark = _mark(self._bundles[name].folder)
            if changed_only and mark in (None, self._marks[name]):
                continue
            try:
                with self._loading:
                    if name in self._loaded:  # it may have made room meanwhile
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
