"""The bundle's manifest: the schema of ``bundle.json``."""

from typing import Annotated, Literal

import msgspec

from cascade.images.preprocess import PreprocessSpec
from cascade.rules.cascade import CascadeRules

SCHEMA_VERSION = 2
MANIFEST = "bundle.json"
CARD = "MODEL_CARD.md"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the manifest."""


Coverage = Annotated[str, msgspec.Meta(pattern=r"^0\.[0-9]{2}$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
HeadFeatures = Literal["trunk", "both"]  # what heads on a shared trunk read: both adds the main model's features


class FileEntry(_Part, frozen=True):
    """One file of the bundle; ``size`` is in bytes."""

    path: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)?\.onnx$")]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(gt=0)]


class PixelModel(_Part, frozen=True):
    """A model that sees pixels: the main model, the shared trunk, or a submodel with a network of its own."""

    file: FileEntry
    preprocess: PreprocessSpec
    backbone: str


class Submodel(_Part, frozen=True, kw_only=True):
    """The binary model of one class; with a shared trunk it reads the trunk's features instead of pixels.

    Its figures were measured out of fold on every validation picture, routed or not.
    """

    label: str
    file: FileEntry
    preprocess: PreprocessSpec | None = None
    backbone: str | None = None
    average_precision: float
    precision: float  # of its yes, at one half
    recall: float


class Calibration(_Part, frozen=True):
    """What the fitted calibration did; the numbers are already inside the graphs."""

    temperature: Annotated[float, msgspec.Meta(gt=0)]
    submodels: dict[str, tuple[float, float]]  # slope and intercept of each Platt scaling


class Accuracy(_Part, frozen=True):
    """Accuracy of one stage, with 95% Wilson intervals."""

    top1: float
    top1_interval: tuple[float, float]
    top2: float
    top2_interval: tuple[float, float]
    ece: float
    seed_score: float


class ReliabilityBin(_Part, frozen=True):
    """The pictures whose highest probability falls into one bin: what it promised and what came of it."""

    confidence: float
    accuracy: float
    pictures: int


class Measured(_Part, frozen=True):
    """Figures measured at export or when tuned, with calibration and routing fitted out of fold."""

    split: str
    method: str
    pictures: int
    seen_in_training: int  # how many of them are byte-identical to a training picture
    main: Accuracy
    submodels: Accuracy
    cascade: Accuracy
    routed: float
    unsure: float
    cost: float  # mean, in passes of the main model
    # Of the cascade; empty in bundles that were exported before these were kept.
    confusion: list[list[int]] = []  # (K, K), true classes in rows, most likely classes in columns
    reliability: list[ReliabilityBin] = []


class Quantised(_Part, frozen=True):
    """How the networks of a bundle were turned into 8-bit integers, and what that cost and gained.

    ``calibration`` is the method that set the ranges of each network's activations, by its file. ``top1_change`` is
    the cascade's against the float bundle, both out of fold on the same pictures. ``speed_up`` is that of a pass of
    the main network by one thread on such a ``processor``.
    """

    calibration: dict[str, str]
    top1_change: float
    speed_up: float
    processor: str


class Provenance(_Part, frozen=True):
    """Where the bundle comes from."""

    data_fingerprint: str
    code_version: str
    created: str
    main_run: str
    submodel_runs: str
    commands: list[str]  # that made it, folders by their names alone


class Manifest(_Part, frozen=True):
    """The content of ``bundle.json``."""

    schema_version: int
    name: str
    classes: Annotated[list[str], msgspec.Meta(min_length=2)]
    main: PixelModel
    trunk: PixelModel | None
    submodels: list[Submodel]
    calibration: Calibration
    rules: CascadeRules
    second_stage_cost: Annotated[float, msgspec.Meta(gt=0)]  # of a routed picture, in passes of the main model
    answer_sets: dict[Coverage, Share]  # coverage ("0.95") to the limit of cascade.evaluation.conformal
    measured: Measured
    provenance: Provenance
    head_features: HeadFeatures = "trunk"
    quantised: Quantised | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless there is one submodel a class, each with what it needs to see."""
        labels = [submodel.label for submodel in self.submodels]
        if labels != self.classes:
            raise ValueError(f"submodels are for {labels}, expected one for each of {self.classes}, in that order")
        if self.head_features == "both" and not self.trunk:
            raise ValueError("head_features is 'both', which is for heads on a shared trunk, and there is no trunk")
        self.rules.check(len(labels))
        for submodel in self.submodels:
            if (submodel.preprocess is None) != (self.trunk is not None):
                raise ValueError("a submodel has its own preprocessing exactly when there is no shared trunk")

    @property
    def networks(self) -> list[tuple[FileEntry, PreprocessSpec]]:
        """Every network that sees pixels, and what it sees of them; the main model is the first."""
        first = [self.main, *([self.trunk] if self.trunk else [])]
        own = [(submodel.file, submodel.preprocess) for submodel in self.submodels if submodel.preprocess]
        return [*((model.file, model.preprocess) for model in first), *own]

    @property
    def files(self) -> list[FileEntry]:
        """Every model file."""
        trunk = [self.trunk.file] if self.trunk else []
        return [self.main.file, *trunk, *(submodel.file for submodel in self.submodels)]
