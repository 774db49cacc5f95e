"""Which names of ``g`` a request leaves behind: rules, and ``g`` → variables. No hooks, no I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple, TypeAlias, TypeGuard
from weakref import WeakKeyDictionary, WeakSet

from flask_chest.errors import ConfigurationError
from flask_chest.protocols import RequestIdGenerator
from flask_chest.record import JSONValue
from flask_chest.values import (
    MASK,
    MAX_NAME_CHARACTERS,
    MAX_RECORD_BYTES,
    SMALL_BYTES,
    TRUNCATED,
    Conversion,
    is_small,
    looks_secret,
    storable_text,
)

TrackedVars: TypeAlias = Mapping[str, Sequence[str]] | Sequence[str]
"""HTTP method or ``"*"`` → names on ``g``; or names for all methods. A bare string is one name."""

METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY".split())
EVERY_METHOD = "*"
_NOTHING: Mapping[str, JSONValue] = MappingProxyType({})


class Variable(NamedTuple):
    """A name on ``g`` and what it becomes in a record."""

    name: str
    key: str
    size: int
    """UTF-8 bytes of *key*."""
    secret: bool


@lru_cache(maxsize=4096)
def variable(name: str) -> Variable:
    """Work out once what a *name* becomes."""
    key = storable_text(name[:MAX_NAME_CHARACTERS])
    return Variable(name, key, len(key.encode()), looks_secret(name))


@dataclass(frozen=True, slots=True)
class Names:
    """The names to capture: those asked for, and with *every* all public ones besides."""

    explicit: tuple[str, ...] = ()
    every: bool = False
    variables: tuple[Variable, ...] = field(init=False, repr=False, compare=False)
    plain: tuple[str, ...] | None = field(init=False, repr=False, compare=False)
    """The explicit ones, if `capture_plain` does for them."""

    def __post_init__(self) -> None:
        """Work out what every request would."""
        variables = tuple(map(variable, self.explicit))
        plain = (
            not self.every
            and all(each.key == each.name and not each.secret for each in variables)
            and sum(each.size + SMALL_BYTES for each in variables) <= MAX_RECORD_BYTES
        )
        object.__setattr__(self, "variables", variables)
        object.__setattr__(self, "plain", self.explicit if plain else None)

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


def capture_plain(held: Mapping[str, object], names: Names) -> dict[str, JSONValue] | None:
    """Give what `capture` would where nothing is to be converted; else ``None``.

    Most requests leave a few short texts and numbers behind. Such values are their own form and together cannot
    reach a record's limit, so that nothing is counted: three of them take 0.4 µs instead of 1.4 µs.
    """
    if names.plain is None:
        return None
    variables: dict[str, JSONValue] = {}
    for name in names.plain:
        if name in held:
            value = held[name]
            # What most are; to ask `is_small` about each would take as long as all the rest.
            if type(value) is str:
                if not value.isascii() or len(value) > SMALL_BYTES or "\0" in value:
                    return None
            elif not is_small(value):
                return None
            variables[name] = value
    return variables


def capture(
    held: Mapping[str, object], names: Names, conversion: Conversion, earlier: Mapping[str, JSONValue] = _NOTHING
) -> dict[str, JSONValue]:
    """Convert the chosen *names* of what ``g`` held; names that are not there are left out.

    With ``names.every`` also the public names whose values are JSON scalars or containers: an extension's
    connection on ``g`` is no variable. A value that cannot be read is what it was *earlier*.
    """
    variables: dict[str, JSONValue] = {}
    for name, key, size, secret in names.variables:
        if name in held:
            conversion.left_in_record -= size
            failures = conversion.failures
            variables[key] = MASK if secret else conversion.convert(held[name], objects=True)
            if conversion.failures > failures and key in earlier:
                variables[key], conversion.failures = earlier[key], failures
    if names.every:
        _capture_public(held, variables, conversion)
    return variables


def _capture_public(held: Mapping[str, object], variables: dict[str, JSONValue], conversion: Conversion) -> None:
    for name, value in list(held.items()):
        # Not isinstance: it asks the value for its __class__, which a proxy looks up by running the app's code.
        if name.startswith("_") or not issubclass(type(value), _PLAIN):
            continue
        _, key, size, secret = variable(name)
        if key in variables:
            continue
        conversion.left_in_record -= size
        if conversion.left_in_record <= 0:
            variables[TRUNCATED] = True
            return
        variables[key] = MASK if secret else conversion.convert(value, objects=False)


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
            # A class that refuses to be subclassed leaves the comparison by identity.
            with suppress(Exception):
                if type(shared) not in _plain_kinds:
                    # Flask's own __setattr__ would make an entry of g named __class__.
                    object.__setattr__(shared, "__class__", _watched(type(shared)))
            _watchers.setdefault(shared, WeakSet()).add(self)

    def of_request(self, g: object) -> Mapping[str, object]:
        """Give what the request has on *g*, which is the shared one up to Flask 3.1 and its own after that."""
        return self.own() if g is self.shared else vars(g)

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
        """Stop watching; safe again. The last of overlapping requests gives the object its class back."""
        with _watching:
            watchers = _watchers.get(self.shared)
            if watchers is None:
                return
            watchers.discard(self)
            if not watchers:
                del _watchers[self.shared]
                kind = type(self.shared)
                if kind in _plain_kinds:
                    object.__setattr__(self.shared, "__class__", _plain_kinds[kind])


_watching = threading.Lock()
_watchers: WeakKeyDictionary[object, WeakSet[SharedG]] = WeakKeyDictionary()
"""Weak on both sides: a streamed response that nobody closes never ends its watch."""
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
