"""The engine: a bundle's ONNX sessions, run as a cascade over batches of pictures."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import onnxruntime
from PIL import Image

from cascade.bundle import Bundle, FileEntry, read_bundle
from cascade.errors import PictureError
from cascade.picture import Source, decode
from cascade.prediction import Prediction
from cascade.preprocess import PreprocessSpec, preprocess
from cascade.rules import candidate_classes, decide, is_unsure, route, top_two

BATCH_SIZE = 32

T = TypeVar("T")


@dataclass(frozen=True)
class CascadeOutput:
    """What both stages said about N pictures, K classes."""

    main: np.ndarray  # (N, K) calibrated probabilities of the main model
    submodels: np.ndarray  # (N, K) calibrated answers of the submodels, NaN where not asked
    probabilities: np.ndarray  # (N, K) the final probabilities
    routed: np.ndarray  # (N,) bool
    unsure: np.ndarray  # (N,) bool


class Engine:
    """Classifies pictures with one bundle. Safe to call from several threads."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle = bundle
        self.classes = tuple(bundle.manifest.classes)
        self._threads = threads or len(os.sched_getaffinity(0))
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._opening = threading.Lock()
        self._session(bundle.manifest.main.file)

    @classmethod
    def load(cls, folder: Path, threads: int | None = None) -> Self:
        """Return an engine for the bundle in a folder; ``threads`` is the number that each inference may use.

        Raises
        ------
        BundleError
            The bundle is refused (see :func:`cascade.bundle.read_bundle`).
        """
        return cls(read_bundle(folder), threads)

    def classify(self, sources: Iterable[Source], batch_size: int = BATCH_SIZE) -> list[Prediction]:
        """Return a prediction for each picture, in order.

        Parameters
        ----------
        sources
            Paths, bytes of files, PIL images or uint8 arrays ``(H, W)`` or ``(H, W, 3)``.
        batch_size
            How many pictures are held and inferred at once.

        Raises
        ------
        PictureError
            A picture cannot be read; the message says which.
        """
        predictions: list[Prediction] = []
        for batch in batches(sources, batch_size):
            pictures = [
                _decode_numbered(source, number) for number, source in enumerate(batch, start=len(predictions) + 1)
            ]
            predictions += self.predictions(self.run(pictures))
        return predictions

    def run(self, pictures: Sequence[Image.Image]) -> CascadeOutput:
        """Run the cascade over one batch of decoded pictures."""
        manifest = self.bundle.manifest
        main = self.main_outputs(pictures, "probabilities")  # (N, K)
        rules = manifest.rules
        routed = route(rules.routing, main)
        submodels = np.full(main.shape, np.nan, dtype=np.float64)
        final = main.astype(np.float64)
        unsure = np.zeros(len(pictures), dtype=bool)
        if routed.any():
            chosen = np.flatnonzero(routed)
            asked = candidate_classes(main[chosen], min(rules.candidates, len(self.classes)))
            answers = self.ask_submodels([pictures[int(index)] for index in chosen], asked)
            submodels[chosen] = answers
            final[chosen] = decide(rules.decision, final[chosen], answers)
            unsure[chosen] = is_unsure(rules.unsure_below, answers)
        return CascadeOutput(main, submodels, final, routed, unsure)

    def main_outputs(self, pictures: Sequence[Image.Image], output: str) -> np.ndarray:
        """Return one output of the main model for a batch.

        ``probabilities`` and ``logits`` are (N, K) float32; ``activation_maps`` is (N, K, h, w), each class's
        evidence over the picture before pooling (class activation mapping, Zhou et al., arXiv 1512.04150).
        """
        model = self.bundle.manifest.main
        return self._session(model.file).run([output], {"pixels": stack(pictures, model.preprocess)})[0]

    def ask_submodels(
        self, pictures: Sequence[Image.Image], asked: np.ndarray, output: str = "probability"
    ) -> np.ndarray:
        """Return what the submodels say (N, K), NaN where ``asked`` (N, K) is false.

        With a shared trunk its pass is made once, whatever the number of classes asked about. ``output`` is
        ``probability`` (calibrated) or ``logit`` (before calibration).
        """
        manifest = self.bundle.manifest
        answers = np.full(asked.shape, np.nan, dtype=np.float64)
        features = None
        if manifest.trunk:
            pixels = stack(pictures, manifest.trunk.preprocess)
            features = self._session(manifest.trunk.file).run(["features"], {"pixels": pixels})[0]  # (N, D)
        for column, submodel in enumerate(manifest.submodels):
            rows = np.flatnonzero(asked[:, column])
            if not rows.size:
                continue
            if features is not None:
                feed = {"features": features[rows]}
            else:
                assert submodel.preprocess is not None  # the manifest's validator saw to it
                feed = {"pixels": stack([pictures[int(row)] for row in rows], submodel.preprocess)}
            # A linear head is done before a second thread has woken up.
            session = self._session(submodel.file, 1 if manifest.trunk else None)
            answers[rows, column] = session.run([output], feed)[0]
        return answers

    def predictions(self, output: CascadeOutput) -> list[Prediction]:
        """Return the batch's answers as plain data."""
        order = top_two(output.probabilities)  # (N, 2)
        return [
            Prediction(
                label_1=self.classes[first],
                probability_1=float(output.probabilities[row, first]),
                label_2=self.classes[second],
                probability_2=float(output.probabilities[row, second]),
                stage="submodels" if output.routed[row] else "main",
                unsure=bool(output.unsure[row]),
            )
            for row, (first, second) in enumerate(order)
        ]

    def _session(self, file: FileEntry, threads: int | None = None) -> onnxruntime.InferenceSession:
        # Submodels open when the first picture is routed: a sure picture does not wait for them.
        with self._opening:
            if file.path not in self._sessions:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = threads or self._threads
                options.log_severity_level = 3
                self._sessions[file.path] = onnxruntime.InferenceSession(
                    self.bundle.path(file), options, providers=["CPUExecutionProvider"]
                )
            return self._sessions[file.path]


def stack(pictures: Sequence[Image.Image], spec: PreprocessSpec) -> np.ndarray:
    """Return the preprocessed batch, uint8 (N, size, size, 3)."""
    return np.stack([preprocess(picture, spec) for picture in pictures])


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of ``size``; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _decode_numbered(source: Source, number: int) -> Image.Image:
    try:
        return decode(source)
    except PictureError as error:
        name = source if isinstance(source, str | os.PathLike) else f"picture {number}"
        raise PictureError(f"{name}: {error}") from error
