"""Sessions: the models of a bundle in ONNX Runtime, each opened when it is first needed."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from cascade.bundle.manifest import FileEntry
from cascade.bundle.reading import Bundle, BundleError
from cascade.errors import CanonistiaError
from cascade.threads import processors

Device = Literal["cpu", "cuda"]
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_FOLDED_BYTES = "250000"  # per node; check_graph() limits their number

# The runtime's errors have no common base class but Exception.
REFUSALS = (
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidProtobuf,
    runtime_errors.NoSuchFile,
    runtime_errors.NotImplemented,
    runtime_errors.RuntimeException,
)


class Sessions:
    """One session per model file of a bundle. Safe to call from several threads.

    The main model is opened at once, every other model when a picture is first routed: a picture that is not routed
    does not wait for it.

    Parameters
    ----------
    threads
        Threads per inference; by default one for each processor that this process may use.

    Raises
    ------
    BundleError
        The main model is refused by ONNX Runtime.
    CanonistiaError
        CUDA is requested, and this onnxruntime has none.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, device: Device = "cpu") -> None:
        if _PROVIDERS[device] not in onnxruntime.get_available_providers():
            raise CanonistiaError(
                "this machine's onnxruntime has no CUDA; expected CUDAExecutionProvider among its providers, which are "
                f"{', '.join(onnxruntime.get_available_providers())}; pip install onnxruntime-gpu instead"
            )
        self._bundle = bundle
        self._device = device
        self._threads = threads or processors()
        # A linear head finishes before a second thread has started.
        self._heads = {entry.file.path for entry in bundle.manifest.submodels} if bundle.manifest.trunk else set()
        self._opened: dict[str, onnxruntime.InferenceSession] = {}
        self.session(bundle.manifest.main.file)

    def session(self, file: FileEntry) -> onnxruntime.InferenceSession:
        """Return the session of a model, opened now if it is not open yet.

        Raises
        ------
        BundleError
            The file was replaced since the bundle was read, or ONNX Runtime refuses it.
        """
        session = self._opened.get(file.path)
        if session is None:
            threads = 1 if file.path in self._heads else self._threads
            # Two threads may open one file at the same time; both then use the session that was stored first.
            session = self._opened.setdefault(file.path, self._open(file, threads))
        return session

    def run(self, file: FileEntry, outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the named outputs of a model for named inputs; see :meth:`session` for what it raises."""
        return self.session(file).run(list(outputs), dict(inputs))

    def outputs(self, file: FileEntry) -> list[str]:
        """Return the names of a model's outputs."""
        return [output.name for output in self.session(file).get_outputs()]

    def open_all(self) -> None:
        """Open every model that is not open yet; afterwards the bundle's files are no longer needed."""
        for file in self._bundle.manifest.files:
            self.session(file)

    def _open(self, file: FileEntry, threads: int) -> onnxruntime.InferenceSession:
        # The CPU runs the operators that the GPU has no kernel for.
        providers = list(dict.fromkeys((_PROVIDERS[self._device], _PROVIDERS["cpu"])))
        content = self._bundle.content(file)
        try:
            session = onnxruntime.InferenceSession(content, session_options(threads), providers=providers)
        except REFUSALS as error:
            path = self._bundle.folder / file.path
            raise BundleError(f"{path} is refused by ONNX Runtime ({error}); export the bundle again") from error
        if session.get_providers()[0] != _PROVIDERS[self._device]:  # the runtime only logs it, and uses the CPU
            raise CanonistiaError("onnxruntime could not start CUDA; check the driver and the CUDA and cuDNN libraries")
        # The wrapper keeps the file's bytes, in case that it has to open it again on other providers.
        vars(session).pop("_model_bytes", None)
        return session


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return the options of a session whose inferences use this number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # With it, the runtime would keep a plan and its memory for every batch size that ever occurred.
    options.enable_mem_pattern = False
    # What depends on no picture is computed while a model is opened, whatever its size, unless it is limited.
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", _FOLDED_BYTES)
    # Threads that keep spinning after one model's pass slow down the next model's.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
