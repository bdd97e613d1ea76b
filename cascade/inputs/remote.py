"""Remote pictures: any address that fsspec can open. Needs fsspec, from the batch extra."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from cascade.errors import CanonistiaError, PictureError
from cascade.images.formats import SUFFIXES
from cascade.inputs.containers import container_items, is_container
from cascade.inputs.item import MAX_FILE_BYTES, Item, failed_item

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

READERS = 8


def is_address(name: str) -> bool:
    """Return whether an input is an address, such as ``s3://bucket/photos`` or ``https://…``, and not a path."""
    return "://" in name


def remote_items(address: str) -> Iterator[Item]:
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
    try:
        if "*" in path:
            found = system.glob(path, detail=True)
            infos = [found[name] for name in sorted(found)]
        else:
            infos = [system.info(path)]
    except _failures() as error:
        yield failed_item(address, f"cannot be opened: {_words(error)}")
        return
    if not infos:
        yield failed_item(address, "no file matches this pattern")
    for info in infos:
        if info["type"] != "directory":
            yield from _inside(system, info) if is_container(info["name"]) else [_item(system, info)]
        elif "*" not in path:
            yield from _below(system, path)


def _inside(system: "AbstractFileSystem", info: dict[str, Any]) -> Iterator[Item]:
    place = system.unstrip_protocol(info["name"])
    try:
        for item in container_items(place, partial(system.open, info["name"], "rb")):
            yield replace(item, read=partial(_read_inside, item))
    except _failures() as error:
        yield failed_item(place, f"cannot be opened: {_words(error)}")


def _read_inside(item: Item) -> bytes:
    try:
        return item.read()
    except _failures() as error:
        raise PictureError(f"cannot be opened: {_words(error)}") from error


def _below(system: "AbstractFileSystem", folder: str) -> Iterator[Item]:
    try:
        entries = sorted(system.ls(folder, detail=True), key=lambda entry: PurePosixPath(entry["name"]).parts)
    except _failures() as error:
        yield failed_item(system.unstrip_protocol(folder), f"cannot be listed: {_words(error)}")
        return
    for entry in entries:
        path = PurePosixPath(entry["name"])
        if path.name.startswith(".") or entry["name"].rstrip("/") == folder.rstrip("/"):
            continue
        if entry["type"] == "directory":
            yield from _below(system, entry["name"])
        elif path.suffix.lower() in SUFFIXES:
            yield _item(system, entry)


def _item(system: "AbstractFileSystem", info: dict[str, Any]) -> Item:
    path, size = info["name"], info.get("size") or 0
    changed = next((str(info[name]) for name in ("ETag", "etag", "LastModified", "mtime") if info.get(name)), "")
    stamp = f"{size}:{changed}" if changed else ""
    return Item(system.unstrip_protocol(path), size, stamp, partial(_read, system, path, size))


def _read(system: "AbstractFileSystem", path: str, size: int) -> bytes:
    if size > MAX_FILE_BYTES:
        raise PictureError(f"has {size:,} bytes, over the limit of {MAX_FILE_BYTES:,}; make it smaller")
    try:
        return system.cat_file(path)
    except _failures() as error:
        raise PictureError(f"cannot be opened: {_words(error)}") from error


def _failures() -> tuple[type[Exception], ...]:
    # Some libraries have errors that are no OSError; a library that is not loaded has raised none.
    own = {"aiohttp": "ClientError", "botocore.exceptions": "BotoCoreError"}
    loaded = [getattr(sys.modules[module], name) for module, name in own.items() if module in sys.modules]
    return (OSError, TimeoutError, *loaded)


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
