"""Which names of ``g`` are asked for, by method: what users write, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias, TypeGuard, TypeVar

from flask_chest.errors import ConfigurationError

TrackedVars: TypeAlias = Mapping[str, Sequence[str]] | Sequence[str]
"""HTTP method or ``"*"`` → names on ``g``; or names for all methods. A bare string is one name.

A name may be a path (``user.id``, by keys and attributes) or a glob (``cart_*``); ``"*"`` is every public name.
"""
Rename: TypeAlias = Mapping[str, str]
"""Name, as it is asked for or found, → what it is in the record."""
Computed: TypeAlias = Mapping[str, Callable[[], object]]
"""Name in the record → what makes its value when the request ends."""

METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY".split())
EVERY_METHOD = "*"
EVERY_NAME = "*"
_WILD = frozenset("*?[")
_NO_RENAME: Rename = MappingProxyType({})
_NO_COMPUTED: Computed = MappingProxyType({})


def known_method(method: str) -> str:
    """Return *method* as HTTP spells it; one that only a client knows stays as it is."""
    return upper if (upper := method.upper()) in METHODS else method


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Names:
    """What to capture: names, those that match a glob, and with *every* all public ones besides."""

    explicit: tuple[str, ...] = ()
    every: bool = False
    globs: tuple[str, ...] = ()
    rename: Rename = field(default_factory=lambda: _NO_RENAME)
    computed: Computed = field(default_factory=lambda: _NO_COMPUTED)

    def __or__(self, other: Names) -> Names:
        """Join two selections, without a name twice; where both rename or compute one, *other* decides."""
        return Names(
            tuple(dict.fromkeys(self.explicit + other.explicit)),
            self.every or other.every,
            tuple(dict.fromkeys(self.globs + other.globs)),
            {**self.rename, **other.rename},
            {**self.computed, **other.computed},
        )

    def __bool__(self) -> bool:
        """Tell whether anything is asked for."""
        return bool(self.explicit or self.every or self.globs or self.computed)


@dataclass(frozen=True, slots=True)
class TrackedNames:
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
            return cls(MappingProxyType({}), _names(tracked_vars, setting) | more)
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
        everywhere = by_method.pop(EVERY_METHOD, Names()) | more
        return cls(
            MappingProxyType({method: names | everywhere for method, names in by_method.items()}), everywhere
        )

    def for_method(self, method: str) -> Names:
        """Give the names for a request's *method*; HEAD, without a list of its own, has GET's."""
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


def is_iterable(value: object) -> TypeGuard[Iterable[object]]:
    """Narrow *value*."""
    return isinstance(value, Iterable)


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


def _names(names: object, setting: str) -> Names:
    if isinstance(names, str):
        names = (names,)
    if not is_iterable(names) or _is_mapping(names) or isinstance(names, bytes):
        raise ConfigurationError(f"{setting} must be a list of names on g, got {names!r}")
    explicit: list[str] = []
    globs: list[str] = []
    for name in names:
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
        tuple(dict.fromkeys(explicit)), every, tuple(dict.fromkeys(glob for glob in globs if glob != EVERY_NAME))
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
