"""Declared variables: one class says what is recorded, of which types, and what records are found by.

Type checkers then know what is assigned to ``flask.g`` and what a record holds; at run time nothing is wrapped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeGuard,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from flask import g

from flask_chest.errors import ConfigurationError, VariablesMismatch
from flask_chest.record import FIELDS, JSONValue, Record

Kind: TypeAlias = Literal["bool", "int", "float", "text", "json"]
"""What a column of a database can be made for: values of one kind, or ``json`` for any."""

MAX_NAME_BYTES = 63
"""UTF-8 bytes in the name of a field, which becomes that of a column."""
TABLES = frozenset({"variables", "exporters", "rejected", "deletions", "forgotten", "leases", "schema"})
"""Ends of the names of a chest's tables, which no view may have."""


class Indexed(msgspec.Struct, frozen=True):
    """Annotation of a variable by whose value records are found: it gets an index."""


class Unit(msgspec.Struct, frozen=True):
    """Annotation that says in what a number is measured: ``s``, ``By``, ``{item}``, as UCUM writes it."""

    symbol: str


class _VariablesMeta(msgspec.StructMeta):
    """Lets fields without a default follow those with one, in subclasses too."""

    def __new__(
        metacls, name: str, bases: tuple[type, ...], namespace: dict[str, object], **options: Any
    ) -> _VariablesMeta:
        options["kw_only"] = True
        return super().__new__(metacls, name, bases, namespace, **options)


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Variables(msgspec.Struct, metaclass=_VariablesMeta):
    """The variables of a route or an app: derive from it, and annotate a field for each.

    Give the class as ``tracked_vars``, assign through `variables`, and read rows with ``chest.query(Visit)``. A
    field that was not assigned is absent from the record; defaults are for these rows alone.
    """


V = TypeVar("V", bound=Variables)


def variables(declared: type[V]) -> V:  # noqa: ARG001 - it is for type checkers
    """Return ``flask.g`` under the type of *declared*, so that type checkers know its attributes.

    Nothing is checked or made here: to read a field that was not assigned is an ``AttributeError``, as on ``g``.
    """
    return cast("V", g)


class Typed(Generic[V]):
    """A record whose variables can be read as the class that declares them."""

    __slots__ = ("_declared", "record")

    def __init__(self, record: Record, declared: type[V]) -> None:
        """Read the variables of *record* as *declared* when they are asked for."""
        self.record = record
        """The record itself."""
        self._declared = declared

    def __repr__(self) -> str:
        return f"<{type(self).__name__}[{self._declared.__name__}] {self.record.id}>"

    @property
    def variables(self) -> V:
        """Declared variables of the record, decoded at each access; fields that it lacks have their defaults.

        Raises `VariablesMismatch` where a required field is missing or a value is not of its declared type.
        """
        try:
            return msgspec.convert(self.record.variables, self._declared)
        except msgspec.ValidationError:  # its message quotes the value
            declaration, held = declaration_of(self._declared), self.record.variables
            found = Check(declaration, declaration.hints).mismatches(held)
            wrong = [f"{name} is not {declaration.expected(name)}" for name in found]
            wrong += [f"{name} is missing" for name in declaration.required - held.keys()]
            raise VariablesMismatch(
                f"record {self.record.id} does not fit {self._declared.__name__}: {', '.join(sorted(wrong))}"
            ) from None


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One declared variable."""

    name: str
    kind: Kind
    indexed: bool = False
    unit: str | None = None


class Declaration:
    """What a class declares, checked."""

    __slots__ = ("declared", "fields", "hints", "required", "view")

    def __init__(self, declared: type[Variables]) -> None:
        """Read *declared*; raise `ConfigurationError` for what no database could have as a view."""
        self.declared = declared
        self.view = _snake_case(declared.__name__)
        """End of the name of its view."""
        self.hints = _hints(declared)
        """Name of each field → its annotation."""
        found = msgspec.structs.fields(declared)
        self.fields = tuple(_field(declared, each, self.hints[each.name]) for each in found)
        self.required = frozenset(each.name for each in found if each.required)
        """Names of the fields without a default."""
        _check_names(declared, self.view, [field.name for field in self.fields])

    def expected(self, name: str) -> str:
        """Return the type of the field *name* as its class writes it, for messages."""
        return _written(self.hints[name])


class Allowed(NamedTuple):
    """Types of which a value must be, or the texts of which it must be one."""

    members: frozenset[object]
    by_value: bool = False

    def has(self, value: JSONValue) -> bool:
        """Return whether *value* is allowed."""
        return isinstance(value, str) and value in self.members if self.by_value else type(value) in self.members


class Check:
    """Compares variables with what is declared of them; none of them must be there."""

    __slots__ = ("_others", "declaration", "plain")

    def __init__(self, declaration: Declaration, names: Iterable[str]) -> None:
        """Compare the fields *names* of *declaration*."""
        self.declaration = declaration
        self.plain: dict[str, Allowed] = {}
        """Fields of which a look into a set decides."""
        self._others: list[tuple[str, type[msgspec.Struct]]] = []
        for name in names:
            hint = declaration.hints[name]
            if get_origin(hint) is Literal and {type(value) for value in get_args(hint)} == {str}:
                self.plain[name] = Allowed(frozenset(get_args(hint)), by_value=True)
            elif (types := _plain_types(hint)) is not None:
                self.plain[name] = Allowed(types)
            else:
                self._others.append((name, msgspec.defstruct("Other", [(name, hint)])))

    def mismatches(self, held: Mapping[str, JSONValue]) -> Sequence[str]:
        """Return the names of the variables in *held* that are not as declared."""
        found = [name for name, allowed in self.plain.items() if name in held and not allowed.has(held[name])]
        for name, other in self._others:
            if name in held:
                try:
                    msgspec.convert({name: held[name]}, other)
                except msgspec.ValidationError:  # its message quotes the value
                    found.append(name)
        return found


@lru_cache(maxsize=1024)
def declaration_of(declared: type[Variables]) -> Declaration:
    """Return what *declared* declares; raise `ConfigurationError` for what cannot be."""
    return Declaration(declared)


def is_declared(value: object) -> TypeGuard[type[Variables]]:
    """Return whether *value* is a class of variables; raise `ConfigurationError` for a class of another kind."""
    if not isinstance(value, type):
        return False
    if issubclass(value, Variables):
        return True
    raise ConfigurationError(
        f"{value.__name__} declares no variables: derive it from flask_chest.Variables, "
        f"as in class {value.__name__}(Variables)"
    )


def _hints(declared: type[Variables]) -> Mapping[str, Any]:
    try:
        return get_type_hints(declared, include_extras=True)
    except NameError as exc:
        raise ConfigurationError(
            f"{declared.__name__} of {declared.__module__} has an annotation that names {exc.name!r}, which its "
            "module does not define: define or import it there, and not in a function or under TYPE_CHECKING"
        ) from exc


def _field(declared: type[Variables], each: msgspec.structs.FieldInfo, hint: object) -> Field:
    where = f"{declared.__name__}.{each.name}"
    if each.encode_name != each.name:
        raise ConfigurationError(f"{where} must be recorded under its own name, not as {each.encode_name!r}")
    extras = tuple(_extras(hint))
    unit = next((extra.symbol for extra in extras if isinstance(extra, Unit)), None)
    indexed = any(extra is Indexed or isinstance(extra, Indexed) for extra in extras)
    try:
        kind = _kind(msgspec.inspect.type_info(hint))
    except TypeError as exc:
        raise ConfigurationError(f"{where} has a type that JSON cannot hold: {exc}") from exc
    if indexed and not each.name.isascii():
        raise ConfigurationError(f"{where} cannot be indexed: the name must be of ASCII letters, digits and _")
    if indexed and kind == "json":
        raise ConfigurationError(
            f"{where} cannot be indexed: an index is for values of one kind (bool, int, float or str, or None)"
        )
    return Field(name=each.name, kind=kind, indexed=indexed, unit=unit)


def _kind(info: msgspec.inspect.Type) -> Kind:
    if isinstance(info, msgspec.inspect.Metadata):
        return _kind(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        kinds: set[Kind] = {_kind(each) for each in info.types if not isinstance(each, msgspec.inspect.NoneType)}
        return next(iter(kinds)) if len(kinds) == 1 else "json"
    if isinstance(info, msgspec.inspect.LiteralType):
        return _of_values(info.values)
    if isinstance(info, msgspec.inspect.EnumType):
        return _of_values(tuple(member.value for member in info.cls))
    return _KINDS.get(type(info)) or "json"


def _of_values(values: tuple[object, ...]) -> Kind:
    kinds = {type(value) for value in values if value is not None}
    return "text" if kinds == {str} else "int" if kinds == {int} else "json"


_KINDS: Mapping[type, Kind] = {
    msgspec.inspect.BoolType: "bool",
    msgspec.inspect.IntType: "int",
    msgspec.inspect.FloatType: "float",
    msgspec.inspect.StrType: "text",
    msgspec.inspect.BytesType: "text",
    msgspec.inspect.DateTimeType: "text",
    msgspec.inspect.DateType: "text",
    msgspec.inspect.TimeType: "text",
    msgspec.inspect.UUIDType: "text",
    msgspec.inspect.DecimalType: "text",
}


def _extras(hint: object) -> Iterator[object]:
    """Yield what annotates *hint*, or a type within a union, as in ``Annotated[float, Unit("s")] | None``."""
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        yield from extras
        yield from _extras(inner)
    elif get_origin(hint) in (Union, UnionType):
        for each in get_args(hint):
            yield from _extras(each)


def _plain_types(hint: object) -> frozenset[object] | None:
    """Return the types of the values that *hint* allows; ``None`` where more than the type decides."""
    if get_origin(hint) in (Union, UnionType):
        found = [_plain_types(each) for each in get_args(hint)]
        return None if None in found else frozenset[object]().union(*(types for types in found if types))
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        return None if any(isinstance(extra, msgspec.Meta) for extra in extras) else _plain_types(inner)
    return _PLAIN_TYPES.get(hint) if isinstance(hint, type) else None


_PLAIN_TYPES: Mapping[type, frozenset[object]] = {
    bool: frozenset({bool}),
    int: frozenset({int}),
    float: frozenset({float, int}),
    str: frozenset({str}),
    NoneType: frozenset({NoneType}),
}


def _written(hint: object) -> str:
    """Write *hint* as in a class, without what annotates it."""
    if get_origin(hint) is Annotated:
        return _written(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(map(_written, get_args(hint)))
    if hint is NoneType:
        return "None"
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _check_names(declared: type[Variables], view: str, names: list[str]) -> None:
    here = f"{declared.__name__} of {declared.__module__}"
    if not declared.__name__.isidentifier():
        raise ConfigurationError(f"{here} has a name that is no identifier, which its view would have")
    if not names:
        raise ConfigurationError(f"{here} declares no variable: annotate a field, as in user_id: int")
    if view in TABLES:
        raise ConfigurationError(
            f"{here} cannot have a view, as a table of the chest has its name: give the class another one"
        )
    seen: dict[str, str] = {}
    for name in names:
        if name in FIELDS or name == "position":
            raise ConfigurationError(
                f"{here} declares {name!r}, which is a field of every record: give the variable another name"
            )
        if len(name.encode()) > MAX_NAME_BYTES:
            raise ConfigurationError(f"{here} declares {name!r}, which is longer than {MAX_NAME_BYTES} bytes")
        if (twin := seen.setdefault(name.lower(), name)) != name:
            raise ConfigurationError(
                f"{here} declares {twin!r} and {name!r}, which databases take for one: rename one of them"
            )


def _snake_case(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return words.lower()
