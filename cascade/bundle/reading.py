"""Reading a bundle: the whole folder is checked, or the bundle is refused."""

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from cascade.bundle.graph import GraphError, check_graph
from cascade.bundle.manifest import CARD, MANIFEST, SCHEMA_VERSION, FileEntry, Manifest
from cascade.errors import CanonistiaError
from cascade.rules.routing import NEVER

_MANIFEST_BYTES = 16_000_000  # at most
_CARD_BYTES = 1_000_000


# What decoding raises: RecursionError for lists in lists in lists.
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class BundleError(CanonistiaError):
    """A bundle is missing, damaged, or of another schema."""


class _Version(msgspec.Struct):
    """The part of a manifest that every schema has."""

    schema_version: int


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were complete and unchanged when it was read."""

    folder: Path
    manifest: Manifest
    sha256: str

    def content(self, file: FileEntry) -> bytes:
        """Return the bytes of a model, which are those that the bundle was checked with.

        Raises
        ------
        BundleError
            The file was replaced since the bundle was read.
        """
        path = self.folder / file.path
        try:
            content = read_inside(self.folder, file.path, file.size)
        except (BundleError, OSError) as error:
            raise BundleError(f"{path} was replaced while the bundle was in use; start again") from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise BundleError(f"{path} was replaced while the bundle was in use; start again")
        return content

    def card(self) -> str:
        """Return the text of the model card; empty where there is none that can be shown."""
        try:
            return read_inside(self.folder, CARD, _CARD_BYTES).decode()
        except (BundleError, OSError, UnicodeDecodeError):
            return ""


def read_bundle(folder: Path) -> Bundle:
    """Return the bundle in a folder after checking its schema, the hash of every file, and every graph.

    Raises
    ------
    BundleError
        A file is missing, changed, or outside of the folder, the schema version is another, or a model is none that is
        exported here (see :func:`cascade.bundle.graph.check_graph`).
    """
    manifest, sha256 = read_manifest(folder)
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock, and start-up waits for it
        list(pool.map(lambda entry: _check_file(folder, entry), manifest.files))
    return Bundle(folder, manifest, sha256)


def read_inside(folder: Path, name: str, most: int) -> bytes:
    """Return the bytes of a file of a bundle, which may come from a stranger.

    Raises
    ------
    BundleError
        The file is a link that leads out of the folder, no regular file, or longer than ``most`` bytes.
    OSError
        There is no such file, or it cannot be read.
    """
    path = folder / name
    if not Path(os.path.realpath(path, strict=True)).is_relative_to(os.path.realpath(folder)):
        raise BundleError(f"{path} is a link that leads out of the bundle; copy the file itself into the folder")
    if not stat.S_ISREG(path.stat().st_mode):
        raise BundleError(f"{path} is no regular file; expected a bundle written by 'canonistia export'")
    # What is no regular file any more must not be waited for.
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb", 0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise BundleError(f"{path} was changed: it has {size:,} bytes, expected at most {most:,}; copy it again")
        return file.readall()


def without_routing(bundle: Bundle) -> Bundle:
    """Return a bundle whose main model answers alone, without what was promised of both stages.

    Its sha256 differs, because its answers do.
    """
    rules = msgspec.structs.replace(bundle.manifest.rules, routing=NEVER, both=None, accept=None)
    manifest = msgspec.structs.replace(bundle.manifest, rules=rules)
    return replace(bundle, manifest=manifest, sha256=hashlib.sha256(msgspec.json.encode(manifest)).hexdigest())


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Return the checked ``bundle.json`` of a folder, and the sha256 of its bytes; the model files are not read."""
    path = folder / MANIFEST
    try:
        content = read_inside(folder, MANIFEST, _MANIFEST_BYTES)
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}); expected a bundle written by 'canonistia export'"
        ) from error
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
    except _NO_JSON as error:
        raise BundleError(
            f"{path} is not a bundle's manifest; expected JSON with a schema_version; export the bundle again"
        ) from error
    if version not in (2, SCHEMA_VERSION):
        raise BundleError(
            f"{path} has schema version {version}, and this canonistia reads the versions 2 and {SCHEMA_VERSION}; "
            "upgrade canonistia, or export the bundle again with this one"
        )
    try:
        return _decoded(content, version), hashlib.sha256(content).hexdigest()
    except _NO_JSON as error:
        raise BundleError(f"{path} is not valid: {error}; export the bundle again") from error


def _decoded(content: bytes, version: int) -> Manifest:
    if version == SCHEMA_VERSION:
        return msgspec.json.decode(content, type=Manifest)
    # Version 2 has the same content under one other name, and its rules know no distance.
    older = msgspec.json.decode(content, type=dict[str, object])
    names = {"answer_sets": "prediction_sets"}
    return msgspec.convert({names.get(name, name): value for name, value in older.items()}, Manifest)


def _check_file(folder: Path, entry: FileEntry) -> None:
    path = folder / entry.path
    try:
        content = read_inside(folder, entry.path, entry.size)
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}); the bundle needs this file; copy the whole folder again"
        ) from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(
            f"{path} was changed: its {len(content)} bytes do not have the sha256 in {MANIFEST} "
            f"({entry.size} bytes expected); copy the whole folder again"
        )
    try:
        check_graph(content)
    except GraphError as error:
        raise BundleError(f"{path} is no model that canonistia exports: {error}; export the bundle again") from error


def describe_file(folder: Path, path: str) -> FileEntry:
    """Return the entry of a file that was just written into a bundle's folder."""
    content = (folder / path).read_bytes()
    return FileEntry(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
