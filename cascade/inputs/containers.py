"""Containers: files that contain many pictures, recognised by their names."""

from collections.abc import Iterator

from cascade.images.folders import PictureFilter
from cascade.inputs.item import Item, Opener

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_TABLES = (".parquet",)


def is_container(name: str) -> bool:
    """Return whether a file with this name contains many pictures."""
    return name.lower().endswith((*_ARCHIVES, *_TABLES))


def container_items(name: str, opened: Opener, chosen: PictureFilter) -> Iterator[Item]:
    """Return the pictures inside an archive or a table; ``opened`` opens the file at its beginning.

    Of an archive, members that are no pictures or not ``chosen`` are passed over.

    Raises
    ------
    CanonistiaError
        The table has no column of pictures.
    """
    # Imported only when needed: classifying one picture should not wait for it.
    if name.lower().endswith(_TABLES):
        from cascade.inputs.parquet import parquet_items

        return parquet_items(name, opened)
    from cascade.inputs.archives import archive_items

    return archive_items(name, opened, chosen)
