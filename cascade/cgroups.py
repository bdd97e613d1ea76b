"""Control groups: the limits that a container, or systemd, sets for this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path


def group_limits(controller: str, file: str, old_files: Sequence[str], root: Path = Path("/")) -> Iterator[list[str]]:
    """Yield the words of a limit in each group of this process, and in their parents, whose limits apply, too.

    ``file`` holds it in version 2 of control groups, ``old_files`` together in version 1. No words: no limit is set
    there. ``root`` is the folder of ``proc`` and ``sys``.
    """
    for line in _words(root / "proc/self/cgroup", "\n"):
        _, controllers, inside = line.split(":", 2)
        if not controllers:
            groups, files = _groups(root / "sys/fs/cgroup", inside), [file]
        elif controller in controllers.split(","):
            groups, files = _groups(root / "sys/fs/cgroup" / controller, inside), list(old_files)
        else:
            continue
        for group in groups:
            yield [word for name in files for word in _words(group / name)]


def _groups(mount: Path, inside: str) -> list[Path]:
    # Inside a container the mount may be the process's own group.
    own = mount / inside.lstrip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(mount))]


def _words(path: Path, separator: str | None = None) -> list[str]:
    try:
        return path.read_text(encoding="ascii").strip().split(separator)
    except OSError:
        return []
