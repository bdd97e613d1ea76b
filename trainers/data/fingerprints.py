"""Fingerprints of pictures: which files are identical, and which show the same picture."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from cascade.errors import CanonistiaError, PictureError
from cascade.images.decoding import decode

# Perceptual hashes have 64 bits. Copies that were resized or saved again differ in 0 to 4 of them;
# unrelated photographs in about 32.
NEAR_BITS = 4
_BANDS = 5  # NEAR_BITS differing bits leave at least one of NEAR_BITS + 1 bands equal (pigeonhole)


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of a file: ``sha256`` of its bytes and, when it can be decoded, ``perceptual`` bits (64,) bool.

    ``size`` is that of the upright picture, ``mode`` the one that the file is stored in.
    """

    sha256: str
    perceptual: np.ndarray | None
    size: tuple[int, int] | None
    mode: str
    error: str


def fingerprint(path: Path) -> Fingerprint:
    """Return the fingerprint of a file; ``error`` is the reason when it cannot be decoded."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return Fingerprint("", None, None, "", f"cannot be opened: {error.strerror}")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        picture = decode(content)
    except PictureError as error:
        return Fingerprint(sha256, None, None, "", str(error))
    bits = imagehash.phash(picture).hash.reshape(-1)
    with Image.open(io.BytesIO(content)) as stored:
        return Fingerprint(sha256, bits, picture.size, stored.mode, "")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes.

    Raises
    ------
    CanonistiaError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CanonistiaError(f"{path} cannot be read ({error.strerror}); remove it from the data set") from error


def data_fingerprint(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return one sha256 for a data set from its (split, label, file sha256) triples, whatever their order."""
    lines = sorted("\t".join(entry) for entry in entries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def identical_groups(hashes: Sequence[str]) -> list[list[int]]:
    """Return the positions that share a sha256, groups of two or more."""
    positions: dict[str, list[int]] = {}
    for position, sha256 in enumerate(hashes):
        positions.setdefault(sha256, []).append(position)
    return [group for group in positions.values() if len(group) > 1]


def near_pairs(bits: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of indices of ``bits`` (N, 64) that differ in at most ``NEAR_BITS`` bits.

    Only pictures with an equal band are compared, so the work grows with the number of likely pairs, not with N².
    """
    pairs: set[tuple[int, int]] = set()
    for band in np.array_split(np.arange(bits.shape[1]), _BANDS):
        keys = np.packbits(bits[:, band], axis=1)  # (N, bytes)
        buckets: dict[bytes, list[int]] = {}
        for index, key in enumerate(keys):
            buckets.setdefault(key.tobytes(), []).append(index)
        for bucket in buckets.values():
            for first, second in _near_in_bucket(bits, bucket):
                pairs.add((first, second))
    return sorted(pairs)


def _near_in_bucket(bits: np.ndarray, bucket: list[int]) -> Iterable[tuple[int, int]]:
    members = np.array(bucket)
    for position, first in enumerate(bucket[:-1]):
        rest = members[position + 1 :]
        near = (bits[rest] != bits[first]).sum(axis=1) <= NEAR_BITS
        for second in rest[near]:
            yield first, int(second)


def connected_groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return a group number for each of ``count`` items, such that the items of every pair share one."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for first, second in pairs:
        parent[root(second)] = root(first)
    return [root(item) for item in range(count)]


def same_picture_groups(fingerprints: Sequence[Fingerprint]) -> list[int]:
    """Return a group number for each fingerprint; identical and near-identical pictures share one."""
    readable = [index for index, item in enumerate(fingerprints) if item.perceptual is not None]
    pairs = [pair for group in identical_groups([f.sha256 for f in fingerprints]) for pair in combinations(group, 2)]
    if readable:
        bits = np.stack([item.perceptual for item in fingerprints if item.perceptual is not None])  # (N, 64)
        pairs += [(readable[first], readable[second]) for first, second in near_pairs(bits)]
    return connected_groups(len(fingerprints), pairs)
