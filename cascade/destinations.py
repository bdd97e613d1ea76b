"""Destinations: types of the options that name what a command will write, checked before its work begins."""

import os
from pathlib import Path
from typing import Any

import click

from cascade.errors import CanonistiaError


class NewFile(click.Path):
    """A file that can be written: its folder exists, or can be made where the command makes it, and takes new files.

    A command that can replace a whole folder by its output names the endings of such folders in ``folders``. Of
    ``endings`` the name must have one, in any case; without them every ending will do.
    """

    def __init__(self, *endings: str, folders: tuple[str, ...] = (), makes_folder: bool = False) -> None:
        super().__init__(path_type=Path)
        self.name = "file"
        self._endings, self._folders, self._makes_folder = endings, folders, makes_folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, or fail with what is wrong with it."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        ending = path.suffix.lower()
        if self._endings and ending not in self._endings:
            self.fail(f"{path} ends in '{path.suffix}'; expected {' or '.join(self._endings)}", param, ctx)
        if os.path.isdir(path) and ending not in self._folders:
            self.fail(f"{path} cannot be written: it is a folder; expected the name of a file", param, ctx)
        if refusal := _refusal(path.parent, self._makes_folder):
            self.fail(f"{path} cannot be written: {refusal}", param, ctx)
        return path


class NewFolder(click.Path):
    """A folder that can be written into, or made."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)
        self.name = "directory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, or fail with what is wrong with it."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if refusal := _refusal(path, may_be_made=True):
            self.fail(f"{path} cannot be written: {refusal}", param, ctx)
        return path


def check_folder(folder: Path) -> None:
    """Check that a command can write into a folder that exists.

    Raises
    ------
    CanonistiaError
        It cannot.
    """
    if refusal := _refusal(folder, may_be_made=False):
        raise CanonistiaError(refusal)


def _refusal(folder: Path, may_be_made: bool) -> str:
    """Return why nothing can be written into a folder; empty where something can."""
    try:
        os.stat(folder)
    except FileNotFoundError:
        if not may_be_made:
            return f"there is no folder {folder}; make it first"
    except NotADirectoryError:
        pass  # said below, with the name of what is in the way
    except OSError as error:
        return f"the folder {folder} cannot be used ({error.strerror}); choose another"
    there = next(place for place in (folder, *folder.parents, Path(".")) if os.path.lexists(place))
    if not os.path.isdir(there):
        return f"{there} is not a folder; choose another name"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"the folder {there} may not be written to; choose another, or change its permissions"
    return ""
