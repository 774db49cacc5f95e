"""The public names and their signatures, as lines: ``python -m tests.support.public_names`` writes them anew."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

MODULES = """
    flask_chest flask_chest.alembic flask_chest.computing flask_chest.decorator flask_chest.errors
    flask_chest.exporter flask_chest.health flask_chest.logs flask_chest.otel flask_chest.protocols
    flask_chest.record flask_chest.request_ids flask_chest.stores flask_chest.testing
    flask_chest.testing.plugin flask_chest.viewer
""".split()
HELD = Path(__file__).with_name("public_names.txt")


def public_names() -> Iterator[str]:
    """Yield a line for each public name, and for each public member of a class."""
    for name in MODULES:
        module = import_module(name)
        for member in sorted(getattr(module, "__all__", None) or _defined(module)):
            yield from _described(f"{name}.{member}", getattr(module, member))


def _defined(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and (inspect.isclass(value) or isinstance(value, FunctionType))
        and value.__module__ == module.__name__
    ]


def _described(path: str, value: object) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"class {path}{_signature(value)}"
        for name in dir(value):
            if not name.startswith("_") and any(name in vars(base) for base in value.__mro__ if _is_ours(base)):
                yield from _described(f"{path}.{name}", inspect.getattr_static(value, name))
    elif isinstance(value, classmethod | staticmethod):
        yield f"{path}{_signature(value.__func__)}"
    elif inspect.isroutine(value):
        yield f"{path}{_signature(value)}"
    else:
        yield path


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "flask_chest"


def _signature(value: object) -> str:
    if isinstance(value, enum.EnumType):
        return ""  # each Python has its own
    try:
        signature = str(inspect.signature(value))  # type: ignore[arg-type]  # what cannot be called is caught
    except (TypeError, ValueError):
        return ""
    signature = re.sub(r" at 0x[0-9a-f]+", "", signature)
    # A union with a Literal is shown in this way by Python 3.14 alone.
    return re.sub(r"Union\[(Literal\[[^]]*\]), ([\w.]+)\]", r"\1 | \2", signature)


if __name__ == "__main__":
    HELD.write_text("".join(f"{line}\n" for line in public_names()))
