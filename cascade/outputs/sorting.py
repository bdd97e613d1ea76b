"""Sorting: pictures copied or linked into one folder per class."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from cascade.errors import CanonistiaError
from cascade.files import written_whole
from cascade.images.labels import file_name
from cascade.inputs.item import Item
from cascade.outputs.rows import Answered
from cascade.terminal import printable

Way = Literal["copy", "link"]
_LONGEST, _LONGEST_ENDING = 240, 20  # bytes of a name; file systems take 255, and digits may be added


@dataclass(frozen=True)
class Sorter:
    """Puts answered pictures into ``folder/<most likely class>/``; rows with errors are skipped.

    Of two pictures with one name, the second gets eight digits of a hash. A file that already exists with the
    same content is kept, so that a run can be resumed. A dry run writes nothing, and shows one line per picture.
    """

    folder: Path
    way: Way = "copy"
    dry_run: bool = False
    show: Callable[[bytes], object] = lambda line: None

    def add(self, answered: Answered) -> None:
        """Put one picture into the folder of its class.

        Raises
        ------
        PictureError
            The picture can no longer be read.
        CanonistiaError
            The file cannot be written, or a picture inside an archive is to be linked.
        """
        label, item = answered.row.label_1, answered.item
        if label is None:
            return
        place = self.folder / file_name(label)
        if self.dry_run:
            self.show(printable(f"{item.name} -> {place / _base(item)}").encode())
            return
        try:
            place.mkdir(parents=True, exist_ok=True)
            self._link(item, place) if self.way == "link" else self._copy(item, place)
        except OSError as error:
            raise CanonistiaError(f"{place} cannot be written ({error}); choose another --sort-into") from error

    def _copy(self, item: Item, place: Path) -> None:
        content = item.read()
        # Of two pictures with one name the second gets digits of its content: so do any that follow it.
        for target in _targets(item, place, content):
            if not target.exists():
                with written_whole(target) as partial:
                    partial.write_bytes(content)
            if target.read_bytes() == content:
                return
        raise CanonistiaError(f"{target} exists with other content; choose an empty --sort-into")

    def _link(self, item: Item, place: Path) -> None:
        source = Path(item.name).absolute()
        if not source.exists():
            raise CanonistiaError(f"{item.name} is not a file that can be linked; use --sort-by copy")
        for target in _targets(item, place, os.fsencode(item.name)):
            if not os.path.lexists(target):
                target.symlink_to(source)
            if target.is_symlink() and target.readlink() == source:
                return
        raise CanonistiaError(f"{target} exists and is another picture; choose an empty --sort-into")


def _base(item: Item) -> str:
    """Return the last part of an item's name, as one that every file system takes."""
    base = PurePosixPath(item.name.rpartition("::")[2].replace("\\", "/")).name.replace("\0", "")
    if base in ("", ".", ".."):
        base = "picture"
    if len(os.fsencode(base)) <= _LONGEST:
        return base
    ending = os.fsencode(PurePosixPath(base).suffix)[:_LONGEST_ENDING]
    return os.fsdecode(os.fsencode(base)[: _LONGEST - len(ending)] + ending)


def _targets(item: Item, place: Path, what: bytes) -> list[Path]:
    plain = place / _base(item)
    digits = hashlib.sha256(what).hexdigest()[:8]
    return [plain, plain.with_name(f"{plain.stem}-{digits}{plain.suffix}")]
