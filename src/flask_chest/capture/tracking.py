"""Who asks for which names of ``g``: views, blueprints and the app, by method, checked when they ask.

What each asks for is joined once for a route and method, and then costs a request nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TypeAlias, TypeGuard, TypeVar
from weakref import WeakSet

import msgspec
from flask import Blueprint, Flask

from flask_chest.capture.options import listed
from flask_chest.declared import Declaration, Variables, declaration_of, is_declared
from flask_chest.errors import ConfigurationError
from flask_chest.protocols import RequestIdGenerator

TrackedNamesOf: TypeAlias = Sequence[str | type[Variables]] | type[Variables]
"""Names on ``g``, classes that declare them, or one such class. A bare string is one name."""
TrackedVars: TypeAlias = Mapping[str, TrackedNamesOf] | TrackedNamesOf
"""HTTP method or ``"*"`` → names on ``g`` or classes that declare them; or those for all methods.

A name may be a path (``user.id``, by keys and attributes) or a glob (``cart_*``); ``"*"`` is every public name.
"""
Rename: TypeAlias = Mapping[str, str]
"""Name, as it is asked for or found, → what it is in the record."""
Computed: TypeAlias = Mapping[str, Callable[[], object]]
"""Name in the record → function that makes its value when the request ends."""

METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY".split())
EVERY_METHOD = "*"
EVERY_NAME = "*"
_WILD = frozenset("*?[")


def known_method(method: str) -> str:
    """Return *method* as HTTP spells it; one that only a client knows stays as it is."""
    return upper if (upper := method.upper()) in METHODS else method


T = TypeVar("T")


class Names(msgspec.Struct, frozen=True):
    """What to capture: names, those that match a glob, and with *every* all public ones besides."""

    explicit: tuple[str, ...] = ()
    every: bool = False
    globs: tuple[str, ...] = ()
    rename: Rename = MappingProxyType({})
    computed: Computed = MappingProxyType({})
    declarations: tuple[Declaration, ...] = ()

    def __or__(self, other: Names) -> Names:
        """Join two selections, without a name twice; where both rename or compute one, *other* decides."""
        return Names(
            tuple(dict.fromkeys(self.explicit + other.explicit)),
            self.every or other.every,
            tuple(dict.fromkeys(self.globs + other.globs)),
            {**self.rename, **other.rename},
            {**self.computed, **other.computed},
            tuple(dict.fromkeys(self.declarations + other.declarations)),
        )

    def __bool__(self) -> bool:
        """Return whether anything is asked for."""
        return bool(self.explicit or self.every or self.globs or self.computed)


class TrackedNames(msgspec.Struct, frozen=True):
    """A checked `TrackedVars`."""

    by_method: Mapping[str, Names]
    otherwise: Names = Names()

    @classmethod
    def parse(
        cls,
        tracked_vars: object,
        *,
        rename: object = None,
        computed: object = None,
        setting: str = "tracked_vars",
    ) -> TrackedNames:
        """Check *tracked_vars*; ``None`` means every public name. Raises `ConfigurationError`."""
        more = Names(rename=parse_rename(rename), computed=parse_computed(computed))
        if tracked_vars is None:
            return cls(MappingProxyType({}), Names(every=True) | more)
        if not _is_mapping(tracked_vars):
            everywhere = _names(tracked_vars, setting)
            _check_renamed(more.rename, [everywhere])
            return cls(MappingProxyType({}), everywhere | more)
        by_method: dict[str, Names] = {}
        for key, names in tracked_vars.items():
            method = key.upper() if isinstance(key, str) else key
            if method != EVERY_METHOD and method not in METHODS:
                raise ConfigurationError(
                    f"{setting} has the key {key!r}, which is not an HTTP method; use one of "
                    f"{', '.join(sorted(METHODS))} or {EVERY_METHOD!r} for all"
                )
            found = _names(names, f"{setting}[{key!r}]")
            by_method[str(method)] = by_method.get(str(method), Names()) | found
        _check_renamed(more.rename, by_method.values())
        everywhere = by_method.pop(EVERY_METHOD, Names()) | more
        return cls(
            MappingProxyType({method: names | everywhere for method, names in by_method.items()}), everywhere
        )

    @property
    def declarations(self) -> tuple[Declaration, ...]:
        """What its classes declare, for whatever method."""
        names = [*self.by_method.values(), self.otherwise]
        return tuple(dict.fromkeys(each for asked in names for each in asked.declarations))

    def for_method(self, method: str) -> Names:
        """Return the names for a request's *method*; HEAD without a list of its own has GET's."""
        if method == "HEAD" and "HEAD" not in self.by_method:
            method = "GET"
        return self.by_method.get(method, self.otherwise)


def parse_rename(value: object, setting: str = "rename") -> Rename:
    """Check names → other names; raise `ConfigurationError`."""
    rename = _checked(value, setting, 'other names, as in {"user.id": "uid"}', _is_text)
    if len(set(rename.values())) < len(rename):
        raise ConfigurationError(f"{setting} gives two variables the same name, got {dict(rename)!r}")
    return rename


def parse_computed(value: object, setting: str = "computed") -> Computed:
    """Check names → functions; raise `ConfigurationError`."""
    return _checked(value, setting, 'functions without arguments, as in {"plan": current_plan}', _is_function)


def _checked(
    value: object, setting: str, what: str, is_right: Callable[[object], TypeGuard[T]]
) -> Mapping[str, T]:
    if value is None:
        return MappingProxyType({})
    if not _is_mapping(value):
        raise ConfigurationError(f"{setting} must map names to {what}; got a {type(value).__name__}")
    checked: dict[str, T] = {}
    for name, given in value.items():
        if not _is_text(name) or not is_right(given):
            raise ConfigurationError(f"{setting} must map names to {what}; got {name!r}: {given!r}")
        checked[name] = given
    return MappingProxyType(checked)


def _check_renamed(rename: Rename, tracked: Iterable[Names]) -> None:
    for declaration in (each for names in tracked for each in names.declarations):
        if renamed := sorted(rename.keys() & {each.name for each in declaration.fields}):
            raise ConfigurationError(
                f"rename is for names that no class declares, and {declaration.declared.__name__} declares "
                f"{renamed[0]!r}: rename the field of the class"
            )


def _names(names: object, setting: str) -> Names:
    explicit: list[str] = []
    globs: list[str] = []
    declarations: list[Declaration] = []
    for name in listed(names, str | type, f"{setting} must be a list of names on g"):
        if is_declared(name):
            declarations.append(declaration := declaration_of(name))
            explicit += (each.name for each in declaration.fields)
            continue
        if not isinstance(name, str) or not _is_name(name):
            raise ConfigurationError(
                f"{setting} must hold names on g, as user_id, user.id or cart_*, got {name!r}"
            )
        if _WILD.isdisjoint(name):
            explicit.append(str(name))
        else:
            globs.append(str(name))
    every = EVERY_NAME in globs
    return Names(
        tuple(dict.fromkeys(explicit)),
        every,
        tuple(dict.fromkeys(glob for glob in globs if glob != EVERY_NAME)),
        declarations=tuple(dict.fromkeys(declarations)),
    )


def _is_name(name: str) -> bool:
    if not _WILD.isdisjoint(name):
        return "." not in name and not any(character.isspace() for character in name)
    first, *others = name.split(".")
    return first.isidentifier() and all(others)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value != ""


def _is_function(value: object) -> TypeGuard[Callable[[], object]]:
    return callable(value)


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


class Rule(msgspec.Struct, frozen=True, eq=False):
    """What one decorator asks for; two that ask for the same are two."""

    tracked: TrackedNames
    request_id_generator: RequestIdGenerator | None = None
    chests: tuple[object, ...] | None = None
    """The chests that it is for; ``None`` for all of the app."""


RULES_ATTRIBUTE = "__flask_chest_rules__"
"""Attribute in which a decorated function carries its rules; ``functools.wraps`` copies it outwards."""

decorated_views: WeakSet[Callable[..., object]] = WeakSet()
"""Functions that the decorator made in this process, so that a view which no app serves can be found."""


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


_NEVER_ATTRIBUTE = "__flask_chest_never__"


def record_never(view: T) -> T:
    """Mark *view* as one whose requests no chest records, whoever asks, and return it."""
    setattr(view, _NEVER_ATTRIBUTE, True)
    return view


def is_recorded(view: object) -> bool:
    """Return whether requests to *view* are recorded where somebody asks."""
    return not getattr(view, _NEVER_ATTRIBUTE, False)


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


class BlueprintRule(msgspec.Struct, frozen=True):
    """What a chest asks of the requests to one blueprint."""

    blueprint: Blueprint
    tracked: TrackedNames

    def covers(self, app: Flask, endpoint: str | None) -> bool:
        """Return whether *endpoint* is one of the blueprint, or of one that is nested in it."""
        parts = (endpoint or "").split(".")[:-1]
        outer = (".".join(parts[: end + 1]) for end in range(len(parts)))
        return any(app.blueprints.get(name) is self.blueprint for name in outer)


class AppRule(msgspec.Struct, frozen=True):
    """What a chest asks of all requests to an app, or of those to some of its routes."""

    tracked: TrackedNames
    include: tuple[str, ...] | None = None
    """``None``: every request, also one that matched no route."""
    exclude: tuple[str, ...] = ()

    def covers(self, endpoint: str | None, route: str | None) -> bool:
        """Return whether requests to *endpoint* under *route* are meant; both are ``None`` if nothing matched."""
        if self.include is not None and not _names_one(self.include, endpoint, route):
            return False
        return not _names_one(self.exclude, endpoint, route)


def parse_routes(value: object, setting: str) -> tuple[str, ...]:
    """Check globs of routes (``/api/*``) and endpoints (``shop.*``); raise `ConfigurationError`."""
    globs: list[str] = []
    for glob in listed(value, str, f"{setting} must be a list of routes (/api/*) or endpoints (shop.*)"):
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
