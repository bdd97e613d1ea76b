"""Reading a bundle: the whole folder is checked, or the bundle is refused."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from cascade.bundle.manifest import MANIFEST, SCHEMA_VERSION, FileEntry, Manifest
from cascade.errors import CanonistiaError
from cascade.rules.routing import NEVER

# The serialised key of an entry that points at another file (onnx.proto, StringStringEntryProto key "location").
_EXTERNAL_DATA = b"\n\x08location"


class BundleError(CanonistiaError):
    """A bundle is missing, damaged, or of another schema."""


class _Version(msgspec.Struct):
    """The part of a manifest that every schema has."""

    schema_version: int


Stamp = tuple[int, int, int]  # inode, size in bytes, time of the last change in ns


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were complete and unchanged when it was read."""

    folder: Path
    manifest: Manifest
    sha256: str
    stamps: Mapping[str, Stamp]

    def path(self, file: FileEntry) -> Path:
        """Return the path of a file of the bundle.

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
        A file is missing or changed, the schema version is another, or a model keeps its weights in a separate file.
    """
    manifest, sha256 = read_manifest(folder)
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock, and start-up waits for it
        stamps = list(pool.map(lambda entry: _check_file(folder / entry.path, entry), manifest.files))
    return Bundle(folder, manifest, sha256, dict(zip((entry.path for entry in manifest.files), stamps, strict=True)))


def without_routing(bundle: Bundle) -> Bundle:
    """Return a bundle whose main model answers alone; its sha256 differs, because its answers do."""
    rules = msgspec.structs.replace(bundle.manifest.rules, routing=NEVER)
    manifest = msgspec.structs.replace(bundle.manifest, rules=rules)
    return replace(bundle, manifest=manifest, sha256=hashlib.sha256(msgspec.json.encode(manifest)).hexdigest())


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Return the checked ``bundle.json`` of a folder, and the sha256 of its bytes; the model files are not read."""
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
        raise BundleError(
            f"{path} is not a bundle's manifest; expected JSON with a schema_version; export the bundle again"
        ) from error
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
            f"{path} cannot be read ({error.strerror}); the bundle needs this file; copy the whole folder again"
        ) from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(
            f"{path} was changed: its {len(content)} bytes do not have the sha256 in {MANIFEST} "
            f"({entry.size} bytes expected); copy the whole folder again"
        )
    if _EXTERNAL_DATA in content:
        raise BundleError(
            f"{path} keeps weights in another file; expected every model in one file; export the bundle again"
        )
    return stamp


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def describe_file(folder: Path, path: str) -> FileEntry:
    """Return the entry of a file that was just written into a bundle's folder."""
    content = (folder / path).read_bytes()
    return FileEntry(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
