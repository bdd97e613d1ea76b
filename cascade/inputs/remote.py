"""Remote pictures: any address that fsspec can open. Needs fsspec, from the batch extra."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from cascade.errors import CanonistiaError, PictureError
from cascade.images.folders import PictureFilter
from cascade.images.formats import named_as_picture
from cascade.inputs.containers import container_items, is_container
from cascade.inputs.item import MAX_FILE_BYTES, Item, failed_item

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

READERS = 8

# The libraries of the stores have errors of many kinds, those of their protocols among them (ftplib, aiohttp,
# botocore, zipfile …), which have no ancestor in common.
_FAILURES = Exception


def is_address(name: str) -> bool:
    """Return whether an input is an address, such as ``s3://bucket/photos`` or ``https://…``, and not a path."""
    return "://" in name


def remote_items(address: str, chosen: PictureFilter) -> Iterator[Item]:
    """Yield the picture at an address, or those below it in the order of their names, listing one folder at a time.

    An archive or a table at an address is opened, and so is each that matches an address with ``*``; those inside a
    folder are not. A folder that cannot be listed is an item that cannot be read. The libraries of the stores retry
    busy stores with growing pauses.

    Raises
    ------
    CanonistiaError
        No library for these addresses is installed.
    """
    import fsspec

    try:
        system, path = fsspec.url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise CanonistiaError(f"{address} cannot be opened: {error}") from error
    except _FAILURES as error:  # a store that answers nobody, an archive that is gone
        yield failed_item(address, f"cannot be opened: {_words(error)}")
        return
    inside = address.partition("::")[2]  # of a chain, what the names that the store gives leave out
    try:
        if "*" in path:
            found = system.glob(path, detail=True)
            infos = [found[name] for name in sorted(found)]
        else:
            infos = [system.info(path)]
    except _FAILURES as error:
        yield failed_item(address, f"cannot be opened: {_words(error)}")
        return
    if not infos:
        yield failed_item(address, "no file matches this pattern")
    for info in infos:
        if info["type"] == "directory":
            found_items = _below(system, path, path, chosen) if "*" not in path else iter(())
        elif is_container(info["name"]):
            found_items = _inside(system, info, chosen)
        else:
            found_items = iter([_item(system, info)])
        yield from (_chained(item, inside) for item in found_items) if inside else found_items


def _chained(item: Item, inside: str) -> Item:
    """Return an item of a chain of addresses under its whole name; the same name and size promise nothing there."""
    return replace(item, name=f"{item.name}::{inside}", stamp="")


def _inside(system: "AbstractFileSystem", info: dict[str, Any], chosen: PictureFilter) -> Iterator[Item]:
    place = system.unstrip_protocol(info["name"])
    try:
        for item in container_items(place, partial(system.open, info["name"], "rb"), chosen):
            yield replace(item, read=partial(_read_inside, item))
    except _FAILURES as error:
        yield failed_item(place, f"cannot be opened: {_words(error)}")


def _read_inside(item: Item) -> bytes:
    try:
        return item.read()
    except PictureError:
        raise
    except _FAILURES as error:
        raise PictureError(f"cannot be opened: {_words(error)}") from error


def _below(system: "AbstractFileSystem", root: str, folder: str, chosen: PictureFilter) -> Iterator[Item]:
    try:
        entries = sorted(system.ls(folder, detail=True), key=lambda entry: PurePosixPath(entry["name"]).parts)
    except _FAILURES as error:
        yield failed_item(system.unstrip_protocol(folder), f"cannot be listed: {_words(error)}")
        return
    for entry in entries:
        path = entry["name"].rstrip("/")
        if path == folder.rstrip("/"):
            continue
        inside = path.removeprefix(root.rstrip("/") + "/")
        is_folder = entry["type"] == "directory"
        reason = chosen.reason_of_folder(inside) if is_folder else chosen.reason(inside)
        if reason or not (is_folder or named_as_picture(inside)):
            chosen.pass_over(inside, reason)
        elif is_folder:
            yield from _below(system, root, entry["name"], chosen)
        else:
            yield _item(system, entry)


def _item(system: "AbstractFileSystem", info: dict[str, Any]) -> Item:
    path, size = info["name"], info.get("size") or 0
    name = system.unstrip_protocol(path)
    if info["type"] not in ("file", "link"):
        return failed_item(name, "cannot be opened: it is a pipe or a device; a file was expected")
    changed = next((str(info[name]) for name in ("ETag", "etag", "LastModified", "mtime") if info.get(name)), "")
    stamp = f"{size}:{changed}" if changed else ""
    return Item(name, size, stamp, partial(_read, system, path, size))


def _read(system: "AbstractFileSystem", path: str, size: int) -> bytes:
    if size > MAX_FILE_BYTES:
        raise PictureError(f"has {size:,} bytes, over the limit of {MAX_FILE_BYTES:,}; make it smaller")
    try:
        if size:
            content = system.cat_file(path)
        else:  # a server that does not say may go on for ever
            with system.open(path, "rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
    except _FAILURES as error:
        raise PictureError(f"cannot be opened: {_words(error)}") from error
    if len(content) > MAX_FILE_BYTES:
        raise PictureError(f"has more than {MAX_FILE_BYTES:,} bytes; make it smaller")
    return content


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
