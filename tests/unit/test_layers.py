"""What import-linter cannot say of the layers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import flask_chest

PACKAGE = Path(flask_chest.__file__).parent


def imported() -> Iterator[tuple[str, str]]:
    """Yield the package of each file, and each module of ours that it imports."""
    for path in PACKAGE.rglob("*.py"):
        package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((package, alias.name) for alias in node.names if alias.name.startswith("flask_chest"))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flask_chest"):
                yield package, str(node.module)
                yield from ((package, f"{node.module}.{alias.name}") for alias in node.names)


def homes(module: str) -> Iterator[str]:
    """Yield the packages that *module*, or a part of its path, is private to."""
    parts = module.split(".")
    for at, part in enumerate(parts):
        if part.startswith("_") and not part.startswith("__"):
            yield ".".join(parts[:at])


def test_module_with_an_underscore_is_imported_in_its_own_package_alone() -> None:
    assert not [
        (package, module)
        for package, module in imported()
        if any(not f"{package}.".startswith(f"{home}.") for home in homes(module))
    ]
