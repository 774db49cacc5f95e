"""Who asks for what: the rules of a view, of a blueprint and of an app."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from weakref import WeakSet

from flask import Blueprint, Flask

from flask_chest.capture.names import METHODS, TrackedNames, is_iterable
from flask_chest.errors import ConfigurationError
from flask_chest.protocols import RequestIdGenerator


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """What one decorator asks for; two that ask for the same are two."""

    tracked: TrackedNames
    request_id_generator: RequestIdGenerator | None = None
    chests: tuple[object, ...] | None = None
    """The chests that it is for; ``None`` for all of the app."""


RULES_ATTRIBUTE = "__flask_chest_rules__"
"""Where a decorated function carries its rules; ``functools.wraps`` takes them outwards."""

decorated_views: WeakSet[Callable[..., object]] = WeakSet()
"""What the decorator made in this process, so that a view which no app serves can be found."""


def rules_of(view: object, method: str) -> tuple[Rule, ...]:
    """Read the rules of a view function, of the class behind it and of its method for *method*."""
    found: tuple[Rule, ...] = getattr(view, RULES_ATTRIBUTE, ())
    view_class = getattr(view, "view_class", None)
    if view_class is None:
        return found
    handler = getattr(view_class, method.lower(), None)
    if handler is None and method == "HEAD":
        handler = getattr(view_class, "get", None)
    for holder in (view_class, getattr(view_class, "dispatch_request", None), handler):
        of_holder: tuple[Rule, ...] = getattr(holder, RULES_ATTRIBUTE, ())
        found += of_holder
    return found + _of_method_decorators(view_class, method)


def _of_method_decorators(view_class: object, method: str) -> tuple[Rule, ...]:
    """Read what decorates each method of a resource of Flask-RESTful or Flask-RESTX, when it is called."""
    decorators = getattr(view_class, "method_decorators", ())
    if isinstance(decorators, Mapping):
        decorators = decorators.get(method.lower(), ())
    found: tuple[Rule, ...] = ()
    for decorate in decorators if isinstance(decorators, list | tuple) else ():
        found += getattr(decorate, RULES_ATTRIBUTE, ())
    return found


def all_rules_of(view: object) -> tuple[Rule, ...]:
    """Read the rules of a view for every method; a rule for several of them comes several times."""
    return tuple(rule for method in sorted(METHODS) for rule in rules_of(view, method))


def misplaced_views(view_functions: Mapping[str, Callable[..., object]]) -> list[str]:
    """List the endpoints that serve a function from below its ``@flask_chest``.

    That is what ``@flask_chest`` above ``@app.route`` does: the route has taken the bare function.
    """
    endpoints = {id(view): endpoint for endpoint, view in view_functions.items()}
    return sorted(
        endpoints[id(below)]
        for view in decorated_views
        if id(view) not in endpoints
        and id(below := getattr(view, "__wrapped__", None)) in endpoints
        and not hasattr(below, RULES_ATTRIBUTE)
    )


@dataclass(frozen=True, slots=True)
class BlueprintRule:
    """What a chest asks of the requests to one blueprint."""

    blueprint: Blueprint
    tracked: TrackedNames

    def covers(self, app: Flask, endpoint: str | None) -> bool:
        """Tell whether *endpoint* is one of the blueprint, or of one that is nested in it."""
        parts = (endpoint or "").split(".")[:-1]
        outer = (".".join(parts[: end + 1]) for end in range(len(parts)))
        return any(app.blueprints.get(name) is self.blueprint for name in outer)


@dataclass(frozen=True, slots=True)
class AppRule:
    """What a chest asks of all requests to an app, or of those to some of its routes."""

    tracked: TrackedNames
    include: tuple[str, ...] | None = None
    """``None``: every request, also one that matched no route."""
    exclude: tuple[str, ...] = ()

    def covers(self, endpoint: str | None, route: str | None) -> bool:
        """Tell whether requests to *endpoint* under *route* are meant: both ``None`` where nothing matched."""
        if self.include is not None and not _names_one(self.include, endpoint, route):
            return False
        return not _names_one(self.exclude, endpoint, route)


def parse_routes(value: object, setting: str) -> tuple[str, ...]:
    """Check globs of routes (``/api/*``) and endpoints (``shop.*``); raise `ConfigurationError`."""
    if isinstance(value, str):
        value = (value,)
    if not is_iterable(value) or isinstance(value, bytes | Mapping):
        raise ConfigurationError(
            f"{setting} must be a list of routes (/api/*) or endpoints (shop.*), got {value!r}"
        )
    globs: list[str] = []
    for glob in value:
        if not isinstance(glob, str) or not glob:
            raise ConfigurationError(f"{setting} must hold routes (/api/*) or endpoints (shop.*), got {glob!r}")
        globs.append(glob)
    return tuple(globs)


def _names_one(globs: Sequence[str], endpoint: str | None, route: str | None) -> bool:
    for glob in globs:
        candidate = route if glob.startswith("/") else endpoint
        if candidate is not None and fnmatchcase(candidate, glob):
            return True
    return False
