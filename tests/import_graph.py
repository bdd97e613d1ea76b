"""The imports of a source tree, read from its text: which module names which."""

import ast
from collections.abc import Iterator
from pathlib import Path


def modules_of(root: Path, packages: tuple[str, ...]) -> dict[str, Path]:
    """Return the modules of packages below a folder, at any depth, by their dotted names."""
    paths = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    return {_dotted(path.relative_to(root)): path for path in paths}


def imports_of(path: Path) -> Iterator[str]:
    """Yield what a module imports, at its head or inside of functions: modules, and names out of modules.

    ``from a.b import c`` gives ``a.b`` and ``a.b.c``: only who knows all modules can tell whether ``c`` is one.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import; expected the whole name of the module"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_graph(root: Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    """Return the modules of packages, each with those of them that it imports; a package is its ``__init__`` module."""
    modules = modules_of(root, packages)
    return {name: {found for found in imports_of(path) if found in modules} for name, path in modules.items()}


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
