"""Writing a bundle's folder: whole, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cascade.bundle.manifest import CARD, MANIFEST, Manifest
from cascade.errors import CanonistiaError
from cascade.files import written_whole
from cascade.locks import exclusive
from export.bundles.card import model_card


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``bundle.json`` and the model card."""
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST).write_bytes(content + b"\n")
    (folder / CARD).write_text(model_card(manifest), encoding="utf-8")


def read_notes(path: Path | None) -> str:
    """Return the text of the notes that a model card ends with; empty where there are none.

    Raises
    ------
    CanonistiaError
        The file cannot be read, or is no text.
    """
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CanonistiaError(f"the notes {path} cannot be read ({error}); give a Markdown file in UTF-8") from error


@contextmanager
def new_bundle_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside ``out``, which replaces ``out`` at the end, or is removed if the block fails.

    Raises
    ------
    CanonistiaError
        ``out`` exists and is not to be overwritten, another process writes it, or it cannot be written.
    """
    try:
        with exclusive(out), written_whole(out) as folder:
            if out.exists() and not overwrite:  # made since the command began
                raise CanonistiaError(f"{out} exists; replace it with --overwrite, or choose another --out")
            folder.mkdir()
            yield folder
    except OSError as error:
        raise CanonistiaError(
            f"{out} cannot be written ({error.strerror or error}); make room, or choose another folder"
        ) from error
