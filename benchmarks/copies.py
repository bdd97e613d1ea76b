"""Copies: many pictures under new names, made from a few."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path


def copies(found: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Fill a folder with ``count`` pictures, repeating ``found`` in order; return their paths in order."""
    paths = [folder / f"{number:07d}{found[number % len(found)].suffix}" for number in range(count)]
    for number, path in enumerate(paths):
        if number < len(found):
            shutil.copyfile(found[number], path)
        else:
            os.link(paths[number % len(found)], path)
    return paths
