"""The bundle: its schema, and reading one folder whole or not at all."""

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cascade.errors import CanonistiaError
from cascade.images.preprocess import PreprocessSpec
from cascade.rules.cascade import NEVER, CascadeRules, Deferral, PerClass

SCHEMA_VERSION = 2
MANIFEST = "bundle.json"
CARD = "MODEL_CARD.md"

# The serialised key of an entry that points at another file (onnx.proto, StringStringEntryProto key "location").
_EXTERNAL_DATA = b"\n\x08location"


class BundleError(CanonistiaError):
    """A bundle is missing, damaged, or of another schema."""


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
        count, rules = len(labels), self.rules
        if rules.candidates > count:
            raise ValueError(f"{rules.candidates} classes are asked about, and there are {count}")
        if isinstance(rules.routing, PerClass) and len(rules.routing.thresholds) != count:
            raise ValueError(f"{len(rules.routing.thresholds)} routing thresholds, expected one for each of {count}")
        if isinstance(rules.routing, Deferral) and {len(rules.routing.helps), len(rules.routing.hurts)} != {4 + count}:
            raise ValueError(f"the learned routing rule needs {4 + count} weights for {count} classes, twice")
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


class _Version(msgspec.Struct):
    """What can be read of a manifest of any schema."""

    schema_version: int


Stamp = tuple[int, int, int]  # inode, size in bytes, time of the last change in ns


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were all there and unchanged when it was read."""

    folder: Path
    manifest: Manifest
    sha256: str
    stamps: Mapping[str, Stamp]

    def path(self, file: FileEntry) -> Path:
        """Return where a file of the bundle lies.

        Raises
        ------
        BundleError
            The file was replaced since the bundle was read.
        """
        path = self.folder / file.path
        if not path.exists() or _stamp(path) != self.stamps[file.path]:
            raise BundleError(f"{path} was replaced while the bundle was in use; start again")
        return path


def read_bundle(folder: Path) -> Bundle:
    """Return the bundle in a folder after checking its schema and the hash of every file.

    Raises
    ------
    BundleError
        Anything is missing, changed, of another schema version, or keeps its weights in a file of its own.
    """
    manifest, sha256 = read_manifest(folder)
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter free: start-up waits for it
        stamps = list(pool.map(lambda entry: _check_file(folder / entry.path, entry), manifest.files))
    return Bundle(folder, manifest, sha256, dict(zip((entry.path for entry in manifest.files), stamps, strict=True)))


def without_routing(bundle: Bundle) -> Bundle:
    """Return a bundle whose main model answers alone; its sha256 is another, since its answers are."""
    rules = msgspec.structs.replace(bundle.manifest.rules, routing=NEVER)
    manifest = msgspec.structs.replace(bundle.manifest, rules=rules)
    return replace(bundle, manifest=manifest, sha256=hashlib.sha256(msgspec.json.encode(manifest)).hexdigest())


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Return the checked ``bundle.json`` of a folder with the sha256 of its bytes; the model files are not read."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}); expected a bundle written by 'canonistia export'"
        ) from error
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not a bundle's manifest; export the bundle again") from error
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version}, and this canonistia reads version {SCHEMA_VERSION}; "
            "upgrade canonistia, or export the bundle again with this one"
        )
    try:
        return msgspec.json.decode(content, type=Manifest), hashlib.sha256(content).hexdigest()
    except msgspec.ValidationError as error:
        raise BundleError(f"{path} is not valid: {error}; export the bundle again") from error


def _check_file(path: Path, entry: FileEntry) -> Stamp:
    try:
        stamp = _stamp(path)
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}), and the bundle needs it; copy the whole folder again"
        ) from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(
            f"{path} was changed: its {len(content)} bytes do not have the sha256 in {MANIFEST} "
            f"({entry.size} bytes expected); copy the whole folder again"
        )
    if _EXTERNAL_DATA in content:
        raise BundleError(f"{path} keeps weights in another file, which a bundle may not; export the bundle again")
    return stamp


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def describe_file(folder: Path, path: str) -> FileEntry:
    """Return the entry of a file that was just written into a bundle's folder."""
    content = (folder / path).read_bytes()
    return FileEntry(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def bundle_folders() -> list[Path]:
    """Return the folders where bundles are looked up by name, first match first.

    They are ``$CANONISTIA_MODELS``, ``models/`` here, ``models/`` beside the source code, and the environment's
    ``share/canonistia/models``, where the wheel puts the shipped bundle.
    """
    named = os.environ.get("CANONISTIA_MODELS")
    beside_source = Path(__file__).resolve().parents[2] / "models"
    places = [Path("models"), beside_source, Path(sys.prefix, "share", "canonistia", "models")]
    return ([Path(named)] if named else []) + places


def find_bundle(model: str) -> Path:
    """Return the folder of a bundle, given that folder or the bundle's name.

    Raises
    ------
    BundleError
        No such bundle; the message lists the ones found.
    """
    if Path(model, MANIFEST).is_file():
        return Path(model)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", model):
        for place in bundle_folders():
            if (place / model / MANIFEST).is_file():
                return place / model
    names = ", ".join(path.name for path in list_bundles()) or "none"
    raise BundleError(f"no bundle '{model}': neither a folder with {MANIFEST} nor one of the bundles found ({names})")


def list_bundles() -> list[Path]:
    """Return the folders of all bundles found by name; of two with one name, the one that ``--model`` would take."""
    found: dict[str, Path] = {}
    for place in bundle_folders():
        for manifest in sorted(place.glob(f"*/{MANIFEST}")):
            found.setdefault(manifest.parent.name, manifest.parent)
    return [found[name] for name in sorted(found)]
