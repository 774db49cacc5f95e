"""Which names of ``g`` a request leaves behind: rules, and ``g`` → variables. No hooks, no I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias, TypeGuard
from weakref import WeakKeyDictionary, WeakSet

from flask_chest.errors import ConfigurationError
from flask_chest.protocols import RequestIdGenerator
from flask_chest.record import JSONValue
from flask_chest.values import MASK, MAX_NAME_CHARACTERS, TRUNCATED, Conversion, looks_secret, storable_text

TrackedVars: TypeAlias = Mapping[str, Sequence[str]] | Sequence[str]
"""HTTP method or ``"*"`` → names on ``g``; or names for all methods. A bare string is one name."""

METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY".split())
EVERY_METHOD = "*"


@dataclass(frozen=True, slots=True)
class Names:
    """The names to capture: those asked for, and with *every* all public ones besides."""

    explicit: tuple[str, ...] = ()
    every: bool = False

    def __or__(self, other: Names) -> Names:
        """Join two selections, without a name twice."""
        return Names(tuple(dict.fromkeys(self.explicit + other.explicit)), self.every or other.every)


@dataclass(frozen=True, slots=True)
class TrackedNames:
    """A checked `TrackedVars`."""

    by_method: Mapping[str, Names]
    otherwise: Names = Names()

    @classmethod
    def parse(cls, tracked_vars: object, *, setting: str = "tracked_vars") -> TrackedNames:
        """Check *tracked_vars*; ``None`` means every public name. Raises `ConfigurationError`."""
        if tracked_vars is None:
            return cls(MappingProxyType({}), Names(every=True))
        if not _is_mapping(tracked_vars):
            return cls(MappingProxyType({}), _names(tracked_vars, setting))
        by_method: dict[str, Names] = {}
        for key, names in tracked_vars.items():
            method = key.upper() if isinstance(key, str) else key
            if method != EVERY_METHOD and method not in METHODS:
                raise ConfigurationError(
                    f"{setting} has the key {key!r}, which is no HTTP method; use one of "
                    f"{', '.join(sorted(METHODS))} or {EVERY_METHOD!r} for all"
                )
            found = _names(names, f"{setting}[{key!r}]")
            by_method[str(method)] = by_method.get(str(method), Names()) | found
        everywhere = by_method.pop(EVERY_METHOD, Names())
        return cls(
            MappingProxyType({method: names | everywhere for method, names in by_method.items()}), everywhere
        )

    def for_method(self, method: str) -> Names:
        """Give the names for a request's *method*; HEAD, without a list of its own, has GET's."""
        if method == "HEAD" and "HEAD" not in self.by_method:
            method = "GET"
        return self.by_method.get(method, self.otherwise)


@dataclass(frozen=True, slots=True)
class Rule:
    """What one decorator asks for."""

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


def capture(held: Mapping[str, object], names: Names, conversion: Conversion) -> dict[str, JSONValue]:
    """Convert the chosen *names* of what ``g`` held; names that are not there are left out.

    With ``names.every`` also the public names whose values are JSON scalars or containers: an extension's
    connection on ``g`` is no variable.
    """
    variables: dict[str, JSONValue] = {}
    for name in names.explicit:
        if name in held:
            key = _key(name)
            conversion.left_in_record -= len(key.encode())
            variables[key] = MASK if looks_secret(name) else conversion.convert(held[name], objects=True)
    if names.every:
        _capture_public(held, variables, conversion)
    return variables


def _capture_public(held: Mapping[str, object], variables: dict[str, JSONValue], conversion: Conversion) -> None:
    for name, value in list(held.items()):
        key = _key(name)
        # Not isinstance: it asks the value for its __class__, which a proxy looks up by running the app's code.
        if name.startswith("_") or key in variables or not issubclass(type(value), _PLAIN):
            continue
        conversion.left_in_record -= len(key.encode())
        if conversion.left_in_record <= 0:
            variables[TRUNCATED] = True
            return
        variables[key] = MASK if looks_secret(name) else conversion.convert(value, objects=False)


class SharedG:
    """Tells apart what a request set on ``g`` from what was there before it.

    Up to Flask 3.1 a request under an outer ``app.app_context()``, as in tests and scripts, has that context's
    ``g``, with all that former requests left on it. While requests run, the object's class notes which names
    are set: comparing values would miss one that is set again to the same constant.
    """

    def __init__(self, shared: object) -> None:
        """Begin to watch *shared*."""
        self.shared = shared
        self._before = dict(vars(shared))
        self._set = set[str]()
        with _watching:
            watchers = _watchers.setdefault(shared, [])
            # A class that refuses to be subclassed leaves the comparison by identity.
            with suppress(Exception):
                if not watchers:
                    # Flask's own __setattr__ would make an entry of g named __class__.
                    object.__setattr__(shared, "__class__", _watched(type(shared)))
            watchers.append(self)

    def note(self, name: str) -> None:
        """Count *name* as set by this request."""
        self._set.add(name)

    def own(self) -> dict[str, object]:
        """Give what this request has set, or changed by ``setdefault``."""
        before = self._before
        return {
            name: value
            for name, value in vars(self.shared).items()
            if name in self._set or name not in before or before[name] is not value
        }

    def end(self) -> None:
        """Stop watching; the last of overlapping requests gives the object its class back."""
        with _watching:
            watchers = _watchers[self.shared]
            watchers.remove(self)
            if not watchers:
                del _watchers[self.shared]
                kind = type(self.shared)
                if kind in _plain_kinds:
                    object.__setattr__(self.shared, "__class__", _plain_kinds[kind])


_watching = threading.Lock()
_watchers: WeakKeyDictionary[object, list[SharedG]] = WeakKeyDictionary()
_watched_kinds: dict[type, type] = {}
"""Class of a ``g`` → the class made of it that notes; an app has one."""
_plain_kinds: dict[type, type] = {}
"""The way back."""


def _watched(kind: type[object]) -> type[object]:
    if kind in _watched_kinds:
        return _watched_kinds[kind]

    def note(instance: object, name: str, value: object) -> None:
        for watcher in tuple(_watchers.get(instance, ())):
            watcher.note(name)
        kind.__setattr__(instance, name, value)

    watched = type(kind.__name__, (kind,), {"__setattr__": note, "__module__": kind.__module__})
    _watched_kinds[kind] = watched
    _plain_kinds[watched] = kind
    return watched


_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))


def _key(name: str) -> str:
    return storable_text(name[:MAX_NAME_CHARACTERS])


def _names(names: object, setting: str) -> Names:
    if isinstance(names, str):
        names = (names,)
    if not _is_iterable(names) or _is_mapping(names) or isinstance(names, bytes):
        raise ConfigurationError(f"{setting} must be a list of names on g, got {names!r}")
    found = tuple(names)
    for name in found:
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigurationError(
                f"{setting} must hold names on g, got {name!r}; leave tracked_vars out of @flask_chest for all"
            )
    return Names(tuple(dict.fromkeys(str(name) for name in found)))


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_iterable(value: object) -> TypeGuard[Iterable[object]]:
    return isinstance(value, Iterable)
