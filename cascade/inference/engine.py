"""The engine: a bundle's ONNX sessions, run as a cascade over batches of pictures."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from PIL import Image

from cascade.bundle.reading import Bundle, BundleError, read_bundle
from cascade.errors import PictureError
from cascade.images.decoding import Source
from cascade.images.preprocess import PreprocessSpec, preprocess
from cascade.images.view import View, see
from cascade.inference.prediction import Prediction
from cascade.inference.sessions import REFUSALS, Device, Sessions
from cascade.rules.another_class import another_class
from cascade.rules.cascade import CascadeOutput, run_cascade
from cascade.rules.probabilities import softmax, top_two
from cascade.threads import BATCH_SIZE, batches

S = TypeVar("S", bound=Source)
Picture = Image.Image | View
_ONE_PICTURE = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, View, io.IOBase)


class Engine:
    """Classifies pictures with one bundle. Safe to call from several threads."""

    def __init__(self, bundle: Bundle, threads: int | None = None, device: Device = "cpu") -> None:
        self.bundle = bundle
        self.classes = tuple(bundle.manifest.classes)
        self.sessions = Sessions(bundle, threads, device)

    @classmethod
    def load(cls, folder: Path, threads: int | None = None, device: Device = "cpu") -> Self:
        """Return an engine for the bundle in a folder; ``threads`` is the number of threads per inference.

        Raises
        ------
        BundleError
            The bundle is refused (see :func:`cascade.bundle.reading.read_bundle`).
        CanonistiaError
            CUDA is requested, and this onnxruntime has none.
        """
        return cls(read_bundle(folder), threads, device)

    def classify(self, sources: Iterable[Source], batch_size: int = BATCH_SIZE) -> list[Prediction]:
        """Return a prediction for each picture, in order.

        Parameters
        ----------
        sources
            Paths, bytes of files, PIL images or uint8 arrays ``(H, W)`` or ``(H, W, 3)``.
        batch_size
            Number of pictures that are in memory and inferred at once.

        Raises
        ------
        PictureError
            A picture cannot be read; the message names it.
        TypeError
            One picture is given, and not a list of them.
        ValueError
            The batch size is not positive.
        """
        predictions: list[Prediction] = []
        for batch in self.viewed_batches(sources, batch_size):
            for number, (source, picture) in enumerate(batch, start=len(predictions) + 1):
                if isinstance(picture, PictureError):
                    name = source if isinstance(source, str | os.PathLike) else f"picture {number}"
                    raise PictureError(f"{name}: {picture}") from picture
            predictions += self.predictions(self.run(readable(batch)))
        return predictions

    @cached_property
    def specs(self) -> set[PreprocessSpec]:
        """Return every preprocessing that this bundle's networks may need."""
        manifest = self.bundle.manifest
        used = manifest.networks[:1] if manifest.rules.routing.routes_nothing else manifest.networks
        return {spec for _, spec in used}

    def see(self, source: Source) -> View | PictureError:
        """Return a picture decoded for this bundle's models, or the error why it cannot be decoded."""
        try:
            view = see(source, self.specs)
            view.prepare(self.bundle.manifest.main.preprocess, self.specs)
        except PictureError as error:
            return PictureError(str(error))  # without its traceback, which keeps the bytes in memory
        except MemoryError:
            return PictureError("does not fit into the memory that is left; make it smaller")
        return view

    def viewed_batches(
        self, sources: Iterable[S], size: int = BATCH_SIZE
    ) -> Iterator[list[tuple[S, View | PictureError]]]:
        """Yield the sources in order, in batches, each with its decoded picture or the decoding error.

        Raises
        ------
        TypeError
            One picture is given, and not a list of them.
        ValueError
            The size is not positive.
        """
        _check_list(sources)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"the batch size is {size!r}; expected a whole number, 1 or more")
        for batch in batches(sources, size):
            yield [(source, self.see(source)) for source in batch]

    def run(self, pictures: Sequence[Picture]) -> CascadeOutput:
        """Run the cascade over one batch of decoded pictures."""
        manifest = self.bundle.manifest
        maps_wanted, features_wanted = manifest.rules.needs_maps, manifest.head_features == "both"
        more = (*["activation_maps"] * maps_wanted, *["features"] * features_wanted)
        logits, distance, *others = self.main_outputs(pictures, "logits", "distance", *more)  # (N, K), (N,)
        another = another_class(others[0]) if maps_wanted else None  # (N,)
        main = softmax(logits, manifest.calibration.temperature)  # (N, K)
        distance = manifest.calibration.distance.corrected(distance, logits)

        def ask(indices: np.ndarray, asked: np.ndarray) -> np.ndarray:
            known = others[-1][indices] if features_wanted else None
            return self.ask_submodels([pictures[int(index)] for index in indices], asked, main_features=known)

        return run_cascade(manifest.rules, main, distance, ask, another)

    @property
    def has_activation_maps(self) -> bool:
        """Return whether the main model has the output ``activation_maps``, which needs a feature map."""
        return "activation_maps" in self.sessions.outputs(self.bundle.manifest.main.file)

    def main_outputs(self, pictures: Sequence[Picture], *outputs: str) -> list[np.ndarray]:
        """Return the named outputs of the main model for a batch.

        ``logits`` are (N, K) float32, before calibration. ``distance`` (N,) is the distance of the picture from the
        nearest class of the training pictures, about 1 for training pictures. ``activation_maps`` (N, K, h, w) is the
        evidence for each class at each place before pooling (class activation mapping, Zhou et al., arXiv
        1512.04150). ``features`` (N, M) are pooled; they exist if the manifest's ``head_features`` is ``both``.

        Raises
        ------
        BundleError
            Activation maps are requested, and the backbone has no spatial feature map.
        """
        model = self.bundle.manifest.main
        if "activation_maps" in outputs and not self.has_activation_maps:
            raise BundleError(
                f"{self.bundle.folder} has no activation maps: its backbone {model.backbone} has no spatial feature "
                "map before the pooling; train a backbone with one, such as efficientnet_lite0 or resnet50"
            )
        return self.sessions.run(model.file, outputs, {"pixels": stack(pictures, model.preprocess)})

    def ask_submodels(
        self,
        pictures: Sequence[Picture],
        asked: np.ndarray,
        output: str = "probability",
        main_features: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the submodels' answers (N, K), NaN where ``asked`` (N, K) is false.

        A shared trunk runs once, for any number of classes. ``output`` is ``probability`` (calibrated) or ``logit``
        (before calibration). ``main_features`` (N, M) is for heads that read the main model's features too; without
        it the main model runs again.
        """
        manifest = self.bundle.manifest
        answers = np.full(asked.shape, np.nan, dtype=np.float64)
        batches: dict[PreprocessSpec, np.ndarray] = {}  # networks with one preprocessing share the batch

        def pixels(spec: PreprocessSpec) -> np.ndarray:
            if spec not in batches:
                batches[spec] = stack(pictures, spec)
            return batches[spec]

        features = None
        if manifest.trunk:
            feed = {"pixels": pixels(manifest.trunk.preprocess)}
            (features,) = self.sessions.run(manifest.trunk.file, ["features"], feed)  # (N, D)
        if features is not None and manifest.head_features == "both":
            known = self.main_outputs(pictures, "features")[0] if main_features is None else main_features
            features = np.concatenate([features, known], axis=1)  # (N, D + M)
        for column, submodel in enumerate(manifest.submodels):
            indices = np.flatnonzero(asked[:, column])
            if not indices.size:
                continue
            if features is not None:
                feed = {"features": features[indices]}
            else:
                assert submodel.preprocess is not None  # the manifest was checked
                feed = {"pixels": pixels(submodel.preprocess)[indices]}
            (answers[indices, column],) = self.sessions.run(submodel.file, [output], feed)
        return answers

    def predictions(self, output: CascadeOutput) -> list[Prediction]:
        """Return the predictions for a batch."""
        order = top_two(output.probabilities)  # (N, 2)
        promises = self.bundle.manifest.rules.accept is not None
        unsure, both = output.unsure, output.both
        return [
            Prediction(
                label_1=self.classes[first],
                probability_1=float(output.probabilities[index, first]),
                label_2=self.classes[second],
                probability_2=float(output.probabilities[index, second]),
                stage="submodels" if output.routed[index] else "main",
                unsure=bool(unsure[index]),
                both=bool(both[index]),
                accepted=bool(output.accepted[index]) if promises else None,
            )
            for index, (first, second) in enumerate(order)
        ]

    def open_all(self) -> None:
        """Open every model now; afterwards the bundle's files are no longer needed."""
        self.sessions.open_all()

    def self_test(self, batch_size: int = 1) -> None:
        """Open every model and run all of them over a batch of synthetic pictures, which needs as much memory as any.

        Raises
        ------
        BundleError
            A model cannot be run, or its output is no finite number or no probability.
        """
        self.open_all()
        pictures = [Image.linear_gradient("L").rotate(90 * number) for number in range(batch_size)]
        expected = (batch_size, len(self.classes))
        try:
            maps = ["activation_maps"] * self.bundle.manifest.rules.needs_maps
            main, distance, *_ = self.main_outputs(pictures, "logits", "distance", *maps)  # (N, K), (N,)
            if main.shape != expected or distance.shape != expected[:1]:
                raise ValueError(f"the main model's outputs have the shapes {main.shape} and {distance.shape}")
            asked = self.ask_submodels(pictures, np.ones(expected, dtype=bool))  # (N, K)
        except (*REFUSALS, ValueError, IndexError) as error:
            raise BundleError(f"{self.bundle.folder} fails its self-test ({error}); export the bundle again") from error
        if not np.isfinite(main).all() or not np.all((asked >= 0) & (asked <= 1)):
            raise BundleError(
                f"{self.bundle.folder} fails its self-test: its models' outputs are no finite logits and no "
                "probabilities; export the bundle again"
            )


def stack(pictures: Sequence[Picture], spec: PreprocessSpec) -> np.ndarray:
    """Return the preprocessed batch, uint8 (N, size, size, 3).

    Raises
    ------
    TypeError
        One picture is given, and not a list of them, or a picture is not decoded.
    """
    _check_list(pictures)
    return np.stack([_pixels(picture, spec) for picture in pictures])


def _pixels(picture: Picture, spec: PreprocessSpec) -> np.ndarray:
    if isinstance(picture, View):
        return picture.pixels(spec)
    if isinstance(picture, Image.Image):
        return preprocess(picture, spec)
    raise TypeError(f"a picture is of type {type(picture).__name__}; expected a PIL image or what Engine.see returns")


def _check_list(pictures: object) -> None:
    one_array = isinstance(pictures, np.ndarray) and pictures.ndim < 4
    if one_array or isinstance(pictures, _ONE_PICTURE) or not isinstance(pictures, Iterable):
        raise TypeError(
            f"one {type(pictures).__name__} is given; expected a list of pictures, such as [picture] for one"
        )


def readable(batch: Iterable[tuple[object, View | PictureError]]) -> list[View]:
    """Return the pictures of a batch that could be decoded."""
    return [view for _, view in batch if isinstance(view, View)]
