"""Archives: the pictures inside zip and tar files, read one after another without unpacking to disk."""

import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import PurePosixPath
from typing import IO

from cascade.errors import PictureError
from cascade.images.folders import PictureFilter
from cascade.images.formats import HEAD, format_of, named_as_picture
from cascade.inputs.item import MAX_FILE_BYTES, Item, Opener, failed_item

# Pictures hardly compress: a member that unpacks to far more bytes is made to fill the memory.
MAX_RATIO = 200
_RATIO_COUNTS_FROM = 1_000_000

_DAMAGES = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


def archive_items(name: str, opened: Opener, chosen: PictureFilter) -> Iterator[Item]:
    """Yield the pictures of a zip or tar archive in the archive's order, named ``archive.zip::folder/picture.jpg``.

    A member is an item that cannot be read if its name leads out of the archive (``..``, an absolute path), if it is
    encrypted, or if it unpacks to far more bytes; so is the rest of a damaged archive. WebDataset's shards are tar
    archives.
    """
    try:
        file = opened()
    except OSError as error:
        yield failed_item(name, f"cannot be opened: {error.strerror or error}")
        return
    walk = _zip_items if name.lower().endswith(".zip") else _tar_items
    try:
        yield from walk(name, file, chosen)
    except _DAMAGES as error:
        yield failed_item(name, f"is not a complete archive: {error or type(error).__name__}")


def _zip_items(place: str, packed_file: IO[bytes], chosen: PictureFilter) -> Iterator[Item]:
    with ExitStack() as opening:
        opening.enter_context(packed_file)
        archive = zipfile.ZipFile(packed_file)
        # Other threads read the items later: the archive is closed when the last item is gone.
        weakref.finalize(archive, opening.pop_all().close)
    for member in archive.infolist():
        if member.is_dir() or is_passed_over(member.filename, chosen):
            continue
        name = f"{place}::{member.filename}"
        packed, size = member.compress_size, member.file_size
        if named_as_picture(member.filename) is None and not _begins_as_picture(archive, member):
            chosen.pass_over(member.filename)
            continue
        if refusal := reason_to_refuse(member.filename, size, packed):
            yield failed_item(name, refusal)
        else:
            yield Item(name, size, f"{size}:{member.CRC:08x}", partial(_read_from_zip, archive, member), here=True)


def _read_from_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(member) as file:
            content = file.read(member.file_size + 1)
    except _DAMAGES as error:
        raise PictureError(f"cannot be unpacked: {error or type(error).__name__}") from error
    if len(content) != member.file_size:
        raise PictureError(f"unpacks to more than the {member.file_size:,} bytes that the archive states")
    return content


def _tar_items(place: str, packed_file: IO[bytes], chosen: PictureFilter) -> Iterator[Item]:
    # A stream has no index: members are read as they pass, and kept until they are classified.
    with packed_file, tarfile.open(fileobj=packed_file, mode="r|*") as archive:
        while member := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]  # the list would grow with every member
            if member.isdir() or is_passed_over(member.name, chosen):
                continue
            name = f"{place}::{member.name}"
            file = archive.extractfile(member) if member.isreg() else None
            if refusal := reason_to_refuse(member.name, member.size, None):
                yield failed_item(name, refusal)
            elif file is None:
                yield failed_item(name, "is a link or a device inside the archive; expected a file")
            else:
                content = _read_from_tar(file, packed_file)
                if named_as_picture(member.name) is None and format_of(content[:HEAD]) is None:
                    chosen.pass_over(member.name)
                    continue
                if len(content) < member.size:
                    yield failed_item(name, f"unpacks to {member.size:,} bytes from far fewer, which no picture does")
                    raise tarfile.ReadError("it was made to fill a memory; the rest of it is not read")
                stamp = f"{member.size}:{zlib.crc32(content):08x}"
                yield Item(name, member.size, stamp, partial(bytes, content), here=True)


def _read_from_tar(file: IO[bytes], packed_file: IO[bytes]) -> bytes:
    """Return a member's bytes, or fewer where they become far more than what was read of the archive itself."""
    content = bytearray()
    while block := file.read(_RATIO_COUNTS_FROM):
        content += block
        if len(content) > max(_RATIO_COUNTS_FROM, MAX_RATIO * packed_file.tell()):
            break
    return bytes(content)


def reason_to_refuse(name: str, size: int, packed: int | None) -> str:
    """Return why a member is not read, by its name and its sizes in bytes; empty if it is."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return "has a name that leads out of the archive; pack it again"
    if size > MAX_FILE_BYTES:
        return f"unpacks to {size:,} bytes, over the limit of {MAX_FILE_BYTES:,}"
    if packed is not None and size > max(_RATIO_COUNTS_FROM, MAX_RATIO * packed):
        return f"unpacks to {size:,} bytes from {packed:,}, which no picture does"
    return ""


def _begins_as_picture(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(member) as file:
            return format_of(file.read(HEAD)) is not None
    except _DAMAGES:
        return False


def is_passed_over(name: str, chosen: PictureFilter) -> bool:
    """Return whether a member is no picture by its name, or excluded, and count it if it is."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("..", "/")]
    reason = chosen.reason("/".join(parts)) if parts else ""
    if reason:
        chosen.pass_over(name, reason)
    return bool(reason)
