"""Looking up bundles: from a name to a folder."""

import os
import re
import sys
from glob import glob
from pathlib import Path

from cascade.bundle.manifest import MANIFEST
from cascade.bundle.reading import BundleError
from cascade.files import restore


def bundle_folders() -> list[Path]:
    """Return the folders where bundles are looked up by name, in order of priority.

    They are ``$CANONISTIA_MODELS``, ``models/`` in the current folder, ``models/`` beside the source code, and the
    environment's ``share/canonistia/models``, where the wheel puts the shipped bundle.
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
        There is no such bundle; the message lists the bundles found.
    """
    restore(Path(model))
    if os.path.isfile(Path(model, MANIFEST)):
        return Path(model)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", model):
        for place in bundle_folders():
            restore(place / model)
            if os.path.isfile(place / model / MANIFEST):
                return place / model
    names = ", ".join(path.name for path in list_bundles()) or "none"
    raise BundleError(
        f"no bundle '{model}'; expected a folder with {MANIFEST} or one of the bundles found ({names}); check --model"
    )


def list_bundles() -> list[Path]:
    """Return the folders of all bundles found, one per name: the folder that ``--model`` would take."""
    found: dict[str, Path] = {}
    for place in bundle_folders():
        # Hidden folders are unfinished ones; what may not be read is passed over.
        for inside in sorted(glob(f"[!.]*/{MANIFEST}", root_dir=place)):
            folder = (place / inside).parent
            found.setdefault(folder.name, folder)
    return [found[name] for name in sorted(found)]
