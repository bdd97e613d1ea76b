"""Extras: the libraries that an option needs, and that the plain install leaves out."""

import importlib.util
from collections.abc import Mapping

from cascade.errors import CanonistiaError


def check_installed(option: str, extra: str, libraries: Mapping[str, str]) -> None:
    """Raise CanonistiaError unless all libraries of an option are installed; ``libraries`` are names with a module."""
    missing = [library for library, module in libraries.items() if not _is_there(module)]
    if missing:
        raise CanonistiaError(
            f"{option} needs {' and '.join(missing)}, which the plain install leaves out; install canonistia with its "
            f"{extra} extra: pip install 'canonistia[{extra}]'"
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package above it
        return False
