"""``g`` → variables, as the rules of a route and of a chest say. No hooks, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fnmatch import translate
from functools import lru_cache
from math import isfinite
from operator import attrgetter
from typing import NamedTuple, TypeAlias, cast

import msgspec
from werkzeug.local import LocalProxy

from flask_chest._process import pass_interruption
from flask_chest.capture.redaction import NOTHING_HIDDEN, Verdict
from flask_chest.capture.tracking import Names
from flask_chest.capture.values import (
    MAX_EXACT,
    MAX_NAME_CHARACTERS,
    SMALL_BYTES,
    TRUNCATED,
    Conversion,
    Dropped,
    ValueRules,
    is_small,
    storable_text,
)
from flask_chest.declared import Allowed, Check, Declaration
from flask_chest.record import JSONValue

_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
_FILLED = frozenset({list, tuple, dict, set, bytearray})
"""Types whose values may be others later, and can be read without code of the app."""
_ABSENT = object()

PlainName: TypeAlias = "tuple[str, str, Allowed | None]"
"""Name on ``g``, key in the record, and what is declared for it."""


class CapturedName(NamedTuple):
    """A name that is asked for, and what it becomes in a record."""

    name: str
    path: tuple[str, ...]
    """The name on ``g``, then keys or attributes."""
    key: str
    size: int
    """UTF-8 bytes of *key*."""
    verdict: Verdict


class Extraction(NamedTuple):
    """What a request left behind."""

    variables: dict[str, JSONValue]
    failures: int
    """Values that raised while they were read."""


class Extractor:
    """Takes from ``g`` what one chest asks of one route: worked out once, used for every request."""

    __slots__ = (
        "_declared",
        "_floats",
        "_globs",
        "_names",
        "_plain",
        "_rules",
        "_small",
        "_variable",
        "checks",
        "variables",
    )

    def __init__(self, names: Names, rules: ValueRules) -> None:
        """Work out what *names* become under *rules*."""
        self._names = names
        fields = [field for each in names.declarations for field in each.fields]
        self._declared = frozenset(field.name for field in fields)
        self._floats = tuple(field.name for field in fields if field.kind == "float")
        """Names of the fields of which whole numbers become floats."""
        self._globs = tuple((glob.startswith("_"), re.compile(translate(glob)).match) for glob in names.globs)
        self._rules = rules
        self.checks = tuple(map(self._checked, names.declarations))
        """What the declared variables are compared with, but for those of which a rule may hide something."""
        self._variable = lru_cache(maxsize=4096)(self._make_variable)
        self.variables = tuple(map(self._variable, names.explicit))
        """What is asked for by name."""
        self._small = min(SMALL_BYTES, rules.max_value_bytes)
        self._plain = self._plain_names()

    def _make_variable(self, name: str) -> CapturedName:
        renamed = name if name in self._declared else self._names.rename.get(name, name)
        key = storable_text(renamed[:MAX_NAME_CHARACTERS])
        verdict = self._rules.redaction.verdict(name)
        if key != name and verdict.last is None:  # both names count
            more = self._rules.redaction.verdict(key)
            if more is not NOTHING_HIDDEN:
                patterns = tuple(dict.fromkeys(verdict.patterns + more.patterns))
                judges = tuple(dict.fromkeys(verdict.judges + more.judges))
                verdict = Verdict(patterns, judges, more.last)
        return CapturedName(name, tuple(name.split(".")), key, len(key.encode()), verdict)

    def _checked(self, declaration: Declaration) -> Check:
        verdict = self._rules.redaction.verdict
        return Check(
            declaration, [each.name for each in declaration.fields if verdict(each.name) is NOTHING_HIDDEN]
        )

    def _plain_names(self) -> tuple[PlainName, ...] | None:
        names = self._names
        if names.every or names.globs or names.computed:
            return None
        if any(each.verdict is not NOTHING_HIDDEN or len(each.path) > 1 for each in self.variables):
            return None
        if sum(each.size + self._small for each in self.variables) > self._rules.max_record_bytes:
            return None
        allowed = {name: each for check in self.checks for name, each in check.plain.items()}
        declared = [field.name for each in names.declarations for field in each.fields]
        if len(allowed) < len(declared):
            return None  # more than a look into a set decides, or two classes declare one name
        for name in self._floats:  # a whole number for a float has to be converted
            allowed[name] = Allowed(allowed[name].members - {int})
        return tuple((each.name, each.key, allowed.get(each.name)) for each in self.variables)

    def plain(self, held: Mapping[str, object]) -> dict[str, JSONValue] | None:
        """Return what `convert` would if nothing has to be converted, and all is as declared; else ``None``.

        Most requests leave a few short texts and numbers behind. Such values are their own form and together
        cannot reach a record's limit, so that nothing is counted: three of them take 0.4 µs instead of 1.4 µs.
        """
        if self._plain is None:
            return None
        variables: dict[str, JSONValue] = {}
        for name, key, allowed in self._plain:
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
                if allowed is not None and (value if allowed.by_value else type(value)) not in allowed.members:
                    return None
                variables[key] = value
        return variables

    def _widen(self, variables: dict[str, JSONValue]) -> None:
        """Make floats of the whole numbers in variables that are declared as such, where that is exact."""
        for name in self._floats:
            value = variables.get(name)
            if type(value) is int and -MAX_EXACT <= value <= MAX_EXACT:
                variables[name] = float(value)

    def convert(self, held: Mapping[str, object]) -> Extraction:
        """Convert what ``g`` *held*; names that are not there are left out.

        Of every public name only those count whose values are JSON scalars or containers: an extension's
        connection on ``g`` is no variable. A computed one that raises is left out.
        """
        conversion = Conversion(self._rules)
        variables: dict[str, JSONValue] = {}
        if (
            self._take_explicit(held, variables, conversion)
            and self._take_found(self._matching(held), variables, conversion)
            and self._compute(variables, conversion)
            and self._names.every
        ):
            self._take_found(_public(held), variables, conversion, objects=False)
        self._widen(variables)
        return Extraction(variables, conversion.failures)

    def _take_explicit(
        self, held: Mapping[str, object], variables: dict[str, JSONValue], conversion: Conversion
    ) -> bool:
        for each in self.variables:
            value = _look_up(each.path, held, conversion)
            if value is not _ABSENT and not self._take(each, value, variables, conversion):
                return False
        return True

    def _take_found(
        self,
        found: Iterable[tuple[str, object]],
        variables: dict[str, JSONValue],
        conversion: Conversion,
        *,
        objects: bool = True,
    ) -> bool:
        """Take what was *found* under names that nobody spelt out, of which a record has so many at most."""
        for name, value in found:
            each = self._variable(name)
            if each.key in variables:
                continue
            conversion.names_left -= 1
            if conversion.names_left < 0:
                variables[TRUNCATED] = True
                break
            if not self._take(each, value, variables, conversion, objects=objects):
                return False
        return True

    def again(
        self, held: Mapping[str, object], seen: Mapping[str, object], earlier: Mapping[str, JSONValue]
    ) -> dict[str, JSONValue]:
        """Convert what ``g`` *held* when the request is over, where it is not what was *seen*.

        The app's code does not run any more: what it needs, a database perhaps, is closed. So only names that
        were set again are read, and built-in containers, to which something may have been added. All else stays
        as it was *earlier*: paths and computed variables, what has a proxy in it, an encoder or a `Redact` with
        ``when``, and what is gone.
        """
        conversion = Conversion(self._rules, over=True)
        held = dict(held)
        renewed = [
            (each, objects)
            for each, objects in self._asked(held, earlier)
            if each.name not in seen or seen[each.name] is not held[each.name] or type(held[each.name]) in _FILLED
        ]
        variables = dict(earlier)
        stays = earlier.keys() - {each.key for each, _ in renewed}
        if stays:
            conversion.left_in_record -= len(msgspec.json.encode([(key, earlier[key]) for key in stays]))
        for each, objects in renewed:
            failures = conversion.failures
            changed: dict[str, JSONValue] = {}
            conversion.names_left -= 1
            goes_on = self._take(each, held[each.name], changed, conversion, objects=objects)
            if conversion.failures == failures:
                variables |= changed
            if not goes_on or conversion.names_left <= 0:
                variables[TRUNCATED] = True
                break
        self._widen(variables)
        return variables

    def _asked(
        self, held: Mapping[str, object], earlier: Mapping[str, JSONValue]
    ) -> Iterator[tuple[CapturedName, bool]]:
        """List what on ``g`` is asked for, and whether as an object too; of those that share a key the first."""
        keys = set(self._names.computed)
        keys |= {each.key for each in self.variables if len(each.path) > 1 and each.key in earlier}
        found = [(each, True) for each in self.variables if each.name in held]
        found += [(self._variable(name), True) for name, _ in self._matching(held)]
        if self._names.every:
            found += [(self._variable(name), False) for name, _ in _public(held)]
        for each, objects in found:
            if each.key not in keys:
                keys.add(each.key)
                yield each, objects

    def _take(
        self,
        variable: CapturedName,
        value: object,
        variables: dict[str, JSONValue],
        conversion: Conversion,
        *,
        objects: bool = True,
    ) -> bool:
        """Convert *variable*; return False, and mark the record as cut, if it has no room for even the name."""
        name, _, key, size, verdict = variable
        conversion.left_in_record -= size
        if conversion.left_in_record <= 0:
            variables[TRUNCATED] = True
            return False
        with suppress(Dropped):
            variables[key] = conversion.convert(value, objects=objects, path=name, verdict=verdict)
        return True

    def _matching(self, held: Mapping[str, object]) -> Iterator[tuple[str, object]]:
        for private, matches in self._globs:
            for name in list(held):
                # It may be gone by now: what is yielded is converted before the next one, by the app's code too.
                if matches(name) and (private or not name.startswith("_")) and name in held:
                    yield name, held[name]

    def _compute(self, variables: dict[str, JSONValue], conversion: Conversion) -> bool:
        for name, compute in self._names.computed.items():
            try:
                value = compute()
            except BaseException as error:  # noqa: BLE001 - the app's own code; the request goes on, and it is counted
                pass_interruption(error)
                conversion.failures += 1
                continue
            if not self._take(self._variable(name), value, variables, conversion):
                return False
        return True


def _public(held: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in list(held.items()):
        # Not isinstance: it asks the value for its __class__, which a proxy looks up by running its code.
        if not name.startswith("_") and issubclass(type(value), _PLAIN):
            yield name, value


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
