"""Samples: the drawn pictures that the page offers to try, where they show what a model can recognise."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cascade.images.decoding import decode
from webapp.pages.heatmaps import data_uri
from webapp.problems import Problem

_MOST = 6
_THUMBNAIL = 160  # pixels; shown at half the size
# Beside the source code, and where the wheel puts them.
_FOLDERS = (
    Path(__file__).resolve().parents[2] / "data" / "samples",
    Path(sys.prefix, "share", "canonistia", "samples"),
)


@dataclass(frozen=True)
class Sample:
    """A picture to try: its name, what it shows, and its thumbnail as a data: address."""

    name: str
    title: str
    thumbnail: str

    @property
    def file(self) -> str:
        """Return the name of its file."""
        return f"{self.name}.jpg"


def samples_for(classes: Iterable[str]) -> list[Sample]:
    """Return samples that show these classes; where a name has two classes, the model knows both."""
    known = {label.casefold() for label in classes}
    fitting = [path for path in _files().values() if known.issuperset(_shown(path.stem))]
    plain = [path for path in fitting if len(_shown(path.stem)) == 1]
    of_two = [path for path in fitting if path not in plain][: _MOST // 3]
    chosen = [*plain[: _MOST - len(of_two)], *of_two]
    return [Sample(path.stem, _title(path.stem), _thumbnail(path)) for path in chosen]


def sample_picture(name: str) -> tuple[str, bytes]:
    """Return the file name and the bytes of a sample; Problem ``no_picture`` if there is none of that name."""
    path = _files().get(name)
    if path is None:
        raise Problem("no_picture", f"There is no sample picture '{name[:40]}'; choose one that the page shows.")
    return path.name, path.read_bytes()


@cache
def _files() -> dict[str, Path]:
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.jpg"))} if folder else {}


def _title(name: str) -> str:
    return re.sub("^(doubtful|both)_", "", name).replace("_", " ")


def _shown(name: str) -> list[str]:
    return re.split(" or | and ", _title(name))


@cache
def _thumbnail(path: Path) -> str:
    return data_uri(decode(path), _THUMBNAIL)
