"""Containers: files that contain many pictures, recognised by their names."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cascade.images.folders import PictureFilter
    from cascade.inputs.item import Item, Opener


@dataclass(frozen=True)
class Container:
    """A kind of container: what help texts call it, its endings, and ``module:function`` that yields its items."""

    what: str
    endings: tuple[str, ...]
    items: str


CONTAINERS = (
    Container(
        "a zip or tar archive",
        (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"),
        "cascade.inputs.archives:archive_items",
    ),
    Container("a Parquet file with the bytes of pictures", (".parquet",), "cascade.inputs.parquet:parquet_items"),
)


def is_container(name: str) -> bool:
    """Return whether a file with this name contains many pictures."""
    return _container(name) is not None


def container_items(name: str, opened: "Opener", chosen: "PictureFilter") -> "Iterator[Item]":
    """Return the pictures inside a container; ``opened`` opens the file at its beginning.

    Members that are no pictures or not ``chosen`` are passed over.

    Raises
    ------
    ValueError
        No container has such a name.
    CanonistiaError
        The container can have no pictures, such as a table without a column for them.
    """
    container = _container(name)
    if container is None:
        raise ValueError(f"{name} is not the name of a container")
    # Imported only when needed: classifying one picture should not wait for it.
    module, _, function = container.items.partition(":")
    items: Iterator[Item] = getattr(import_module(module), function)(name, opened, chosen)
    return items


def _container(name: str) -> Container | None:
    return next((one for one in CONTAINERS if name.lower().endswith(one.endings)), None)
