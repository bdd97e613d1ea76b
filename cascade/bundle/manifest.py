"""The bundle's manifest: the schema of ``bundle.json``."""

from typing import Annotated, Literal

import msgspec

from cascade.images.preprocess import PreprocessSpec
from cascade.rules.cascade import CascadeRules
from cascade.rules.distance_correction import AS_MEASURED, DistanceCorrection

SCHEMA_VERSION = 3
MANIFEST = "bundle.json"
CARD = "MODEL_CARD.md"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the manifest."""


Coverage = Annotated[str, msgspec.Meta(pattern=r"^0\.[0-9]{2}$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
HeadFeatures = Literal["trunk", "both"]  # input of heads on a shared trunk; both: also the main model's features


class FileEntry(_Part, frozen=True):
    """One file of the bundle; ``size`` is in bytes."""

    path: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)?\.onnx$")]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(gt=0)]


class PixelModel(_Part, frozen=True):
    """A model that sees pixels: the main model, the shared trunk, or a submodel with its own network."""

    file: FileEntry
    preprocess: PreprocessSpec
    backbone: str


class Submodel(_Part, frozen=True, kw_only=True):
    """The binary model of one class; with a shared trunk it reads the trunk's features instead of pixels.

    The figures were measured out of fold on every validation picture, routed or not.
    """

    label: str
    file: FileEntry
    preprocess: PreprocessSpec | None = None
    backbone: str | None = None
    average_precision: float
    precision: float  # at the threshold 0.5, as the recall
    recall: float


class Calibration(_Part, frozen=True):
    """The fitted calibration: a temperature of the main model's logits, the submodels' Platt scaling, the distance.

    The submodels' graphs already contain theirs.
    """

    temperature: Annotated[float, msgspec.Meta(gt=0)]
    submodels: dict[str, tuple[float, float]]  # slope and intercept
    distance: DistanceCorrection = AS_MEASURED


class Accuracy(_Part, frozen=True):
    """Accuracy of one stage, with 95% Wilson intervals."""

    top1: float
    top1_interval: tuple[float, float]
    top2: float
    top2_interval: tuple[float, float]
    ece: float
    seed_score: float


class ReliabilityBin(_Part, frozen=True):
    """The pictures whose highest probability is in one bin: mean confidence and accuracy."""

    confidence: float
    accuracy: float
    pictures: int


class Measured(_Part, frozen=True):
    """Figures measured by export or tune, with calibration and routing fitted out of fold."""

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
    # Of the cascade; empty in bundles of older versions, which did not keep these figures.
    confusion: list[list[int]] = []  # (K, K), true classes in rows, most likely classes in columns
    reliability: list[ReliabilityBin] = []
    both: float = 0.0  # marked so, though every picture is of one class


class Quantised(_Part, frozen=True):
    """How the networks of a bundle were quantised to 8-bit integers, and the effect on accuracy and speed.

    ``calibration`` is, for each network file, the method that set the ranges of the activations. ``top1_change`` is
    the cascade's top 1 minus that of the float bundle, both out of fold on the same pictures. ``speed_up`` compares
    one pass of the main network, by one thread on this kind of ``processor``, with a pass in floating point.
    """

    calibration: dict[str, str]
    top1_change: float
    speed_up: float
    processor: str


class Provenance(_Part, frozen=True):
    """How and from what the bundle was made."""

    data_fingerprint: str
    code_version: str
    created: str
    main_run: str
    submodel_runs: str
    commands: list[str]  # that made the bundle; folders appear by their last name only


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
    # coverage ("0.95") to the limit of cascade.evaluation.conformal
    prediction_sets: dict[Coverage, Share]
    measured: Measured
    provenance: Provenance
    head_features: HeadFeatures = "trunk"
    notes: str = ""  # of its maker, in Markdown: the model card ends with them
    quantised: Quantised | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless there is one submodel per class, and each part fits the others."""
        labels = [submodel.label for submodel in self.submodels]
        if labels != self.classes:
            raise ValueError(f"submodels are for {labels}, expected one for each of {self.classes}, in that order")
        if self.head_features == "both" and not self.trunk:
            raise ValueError("head_features is 'both', which needs a shared trunk, and there is no trunk")
        self.rules.check(len(labels))
        for submodel in self.submodels:
            if (submodel.preprocess is None) != (self.trunk is not None):
                raise ValueError("a submodel has its own preprocessing exactly when there is no shared trunk")

    @property
    def networks(self) -> list[tuple[FileEntry, PreprocessSpec]]:
        """Every network that reads pixels, with its preprocessing; the main model is the first."""
        first = [self.main, *([self.trunk] if self.trunk else [])]
        separate = [(submodel.file, submodel.preprocess) for submodel in self.submodels if submodel.preprocess]
        return [*((model.file, model.preprocess) for model in first), *separate]

    @property
    def files(self) -> list[FileEntry]:
        """Every model file."""
        trunk = [self.trunk.file] if self.trunk else []
        return [self.main.file, *trunk, *(submodel.file for submodel in self.submodels)]
