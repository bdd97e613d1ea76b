"""Writing a bundle's folder: whole, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cascade.bundle.manifest import CARD, MANIFEST, Manifest
from cascade.errors import CanonistiaError
from export.bundles.card import model_card


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``bundle.json`` and the model card."""
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST).write_bytes(content + b"\n")
    (folder / CARD).write_text(model_card(manifest), encoding="utf-8")


@contextmanager
def written_at_once(out: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that takes its place when all went well, and is removed otherwise."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise CanonistiaError(f"{out} cannot be written ({error.strerror}); choose a folder that can") from error
    old = folder.with_suffix(".old")
    try:
        yield folder
        folder.chmod(0o755)
        if overwrite and out.exists():
            os.replace(out, old)
        os.replace(folder, out)
    except OSError as error:
        raise CanonistiaError(f"{out} could not be written ({error}); nothing was left behind") from error
    finally:
        if old.exists() and not out.exists():
            os.replace(old, out)
        for left in (folder, old):
            shutil.rmtree(left, ignore_errors=True)
