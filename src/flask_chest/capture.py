"""``g`` → variables, as the rules of a route and of a chest say. No hooks, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import translate
from functools import lru_cache
from math import isfinite
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple, cast

from werkzeug.local import LocalProxy

from flask_chest.interruptions import pass_interruption
from flask_chest.names import Names
from flask_chest.record import JSONValue
from flask_chest.redaction import NOTHING_HIDDEN, Verdict
from flask_chest.values import (
    MAX_NAME_CHARACTERS,
    SMALL_BYTES,
    TRUNCATED,
    Conversion,
    Dropped,
    ValueRules,
    is_small,
    storable_text,
)

_NOTHING: Mapping[str, JSONValue] = MappingProxyType({})
_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
_ABSENT = object()


class Variable(NamedTuple):
    """A name that is asked for, and what it becomes in a record."""

    name: str
    path: tuple[str, ...]
    """The name on ``g``, then keys or attributes."""
    key: str
    size: int
    """UTF-8 bytes of *key*."""
    verdict: Verdict


class Captured(NamedTuple):
    """What a request left behind."""

    variables: dict[str, JSONValue]
    failures: int
    """Values that raised while they were read."""


class Capture:
    """Takes from ``g`` what one chest asks of one route: worked out once, used for every request."""

    __slots__ = ("_globs", "_names", "_plain", "_rules", "_small", "_variable", "_variables")

    def __init__(self, names: Names, rules: ValueRules) -> None:
        """Work out what *names* become under *rules*."""
        self._names = names
        self._globs = tuple((glob.startswith("_"), re.compile(translate(glob)).match) for glob in names.globs)
        self._rules = rules
        self._variable = lru_cache(maxsize=4096)(self._make_variable)
        self._variables = tuple(map(self._variable, names.explicit))
        self._small = min(SMALL_BYTES, rules.max_value_bytes)
        self._plain = self._plain_names()

    def _make_variable(self, name: str) -> Variable:
        key = storable_text(self._names.rename.get(name, name)[:MAX_NAME_CHARACTERS])
        verdict = self._rules.redaction.verdict(name)
        if key != name and verdict.last is None:  # both names count
            patterns, judges, last = self._rules.redaction.verdict(key)
            if patterns or judges or last:
                patterns = tuple(dict.fromkeys(verdict.patterns + patterns))
                judges = tuple(dict.fromkeys(verdict.judges + judges))
                verdict = Verdict(patterns, judges, last)
        return Variable(name, tuple(name.split(".")), key, len(key.encode()), verdict)

    def _plain_names(self) -> tuple[tuple[str, str], ...] | None:
        names = self._names
        if names.every or names.globs or names.computed:
            return None
        if any(each.verdict is not NOTHING_HIDDEN or len(each.path) > 1 for each in self._variables):
            return None
        if sum(each.size + self._small for each in self._variables) > self._rules.max_record_bytes:
            return None
        return tuple((each.name, each.key) for each in self._variables)

    def plain(self, held: Mapping[str, object]) -> dict[str, JSONValue] | None:
        """Give what `convert` would where nothing is to be converted; else ``None``.

        Most requests leave a few short texts and numbers behind. Such values are their own form and together
        cannot reach a record's limit, so that nothing is counted: three of them take 0.4 µs instead of 1.4 µs.
        """
        if self._plain is None:
            return None
        variables: dict[str, JSONValue] = {}
        for name, key in self._plain:
            if name in held:
                value = held[name]
                # What most are; to ask `is_small` about each would take as long as all the rest.
                if type(value) is str:
                    if not value.isascii() or len(value) > self._small or "\0" in value:
                        return None
                elif type(value) is float:
                    if not isfinite(value):
                        return None
                elif not is_small(value):
                    return None
                variables[key] = value
        return variables

    def convert(
        self, held: Mapping[str, object], earlier: Mapping[str, JSONValue] = _NOTHING, *, compute: bool = True
    ) -> Captured:
        """Convert what ``g`` *held*; names that are not there are left out.

        Of every public name only those count whose values are JSON scalars or containers: an extension's
        connection on ``g`` is no variable. A value that cannot be read is what it was *earlier*. With *compute*
        the computed ones are added; one that raises is left out.
        """
        conversion = Conversion(self._rules)
        variables: dict[str, JSONValue] = {}
        if (
            self._take_explicit(held, variables, conversion, earlier)
            and self._take_matching(held, variables, conversion, earlier)
            and (not compute or self._compute(variables, conversion))
            and self._names.every
        ):
            self._take_public(held, variables, conversion)
        return Captured(variables, conversion.failures)

    def _take_explicit(
        self,
        held: Mapping[str, object],
        variables: dict[str, JSONValue],
        conversion: Conversion,
        earlier: Mapping[str, JSONValue],
    ) -> bool:
        for each in self._variables:
            failures = conversion.failures
            value = _look_up(each.path, held, conversion)
            if value is not _ABSENT:
                if not self._take(each, value, variables, conversion, earlier):
                    return False
            elif each.key in earlier:
                conversion.failures = failures
        return True

    def _take_matching(
        self,
        held: Mapping[str, object],
        variables: dict[str, JSONValue],
        conversion: Conversion,
        earlier: Mapping[str, JSONValue],
    ) -> bool:
        for name in self._matching(held):
            each = self._variable(name)
            if each.key in variables or name not in held:
                continue
            conversion.names_left -= 1
            if conversion.names_left < 0:
                variables[TRUNCATED] = True
                break
            if not self._take(each, held[name], variables, conversion, earlier):
                return False
        return True

    def _take(
        self,
        variable: Variable,
        value: object,
        variables: dict[str, JSONValue],
        conversion: Conversion,
        earlier: Mapping[str, JSONValue],
    ) -> bool:
        """Convert *variable*; give False, and mark the record as cut, if it has no room for even the name."""
        name, _, key, size, verdict = variable
        conversion.left_in_record -= size
        if conversion.left_in_record <= 0:
            variables[TRUNCATED] = True
            return False
        failures = conversion.failures
        try:
            variables[key] = conversion.convert(value, objects=True, path=name, verdict=verdict)
        except Dropped:
            return True
        if conversion.failures > failures and key in earlier:
            variables[key], conversion.failures = earlier[key], failures
        return True

    def _matching(self, held: Mapping[str, object]) -> Iterator[str]:
        for private, matches in self._globs:
            for name in list(held):
                if matches(name) and (private or not name.startswith("_")):
                    yield name

    def _compute(self, variables: dict[str, JSONValue], conversion: Conversion) -> bool:
        for name, compute in self._names.computed.items():
            try:
                value = compute()
            except BaseException as error:  # noqa: BLE001 - the app's own code; the request goes on, and it is counted
                pass_interruption(error)
                conversion.failures += 1
                continue
            if not self._take(self._variable(name), value, variables, conversion, _NOTHING):
                return False
        return True

    def _take_public(
        self, held: Mapping[str, object], variables: dict[str, JSONValue], conversion: Conversion
    ) -> None:
        for name, value in list(held.items()):
            # Not isinstance: it asks the value for its __class__, which a proxy looks up by running its code.
            if name.startswith("_") or not issubclass(type(value), _PLAIN):
                continue
            _, _, key, size, verdict = self._variable(name)
            if key in variables:
                continue
            conversion.left_in_record -= size
            conversion.names_left -= 1
            if conversion.left_in_record <= 0 or conversion.names_left < 0:
                variables[TRUNCATED] = True
                return
            try:
                variables[key] = conversion.convert(value, objects=False, path=name, verdict=verdict)
            except Dropped:
                continue

    @property
    def variables(self) -> tuple[Variable, ...]:
        """What is asked for by name."""
        return self._variables


def _look_up(path: tuple[str, ...], held: Mapping[str, object], conversion: Conversion) -> object:
    if path[0] not in held:
        return _ABSENT
    value = held[path[0]]
    for part in path[1:]:
        try:
            if type(value) is LocalProxy:
                value = cast("LocalProxy[object]", value)._get_current_object()
            if issubclass(type(value), Mapping):
                found = cast("Mapping[object, object]", value)
                if part not in found:
                    return _ABSENT
                value = found[part]
            else:
                value = attrgetter(part)(value)
        except AttributeError:
            return _ABSENT
        except BaseException as error:  # noqa: BLE001 - an attribute's own code may raise anything; the request goes on
            pass_interruption(error)
            conversion.failures += 1
            return _ABSENT
    return value
