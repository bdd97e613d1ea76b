"""Files written whole, or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from cascade.errors import CanonistiaError


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole: a reader, or a process after a crash, finds the old content or the new, never a part.

    Raises
    ------
    CanonistiaError
        The disk is full, or the file cannot be written; the old content is still there.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CanonistiaError(
            f"{path} could not be written ({error.strerror}, {len(content)} bytes); make room on the disk and go on "
            "with --resume: the file as it was before is kept"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole (see :func:`write_bytes`)."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")
