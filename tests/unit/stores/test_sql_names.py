from dataclasses import replace

import pytest

from flask_chest.errors import ConfigurationError, RecordRefused, SchemaError
from flask_chest.record import FIELDS, JSONValue
from flask_chest.stores._records import MAX_REASON, storable_reason, storable_rows
from flask_chest.stores.sql.tables import COLUMNS, MAX_IDENTIFIER, Tables, row_record
from flask_chest.stores.sqlite.connections import SQLITE
from flask_chest.testing.records import make_record


def test_columns_are_the_fields_of_a_record() -> None:
    assert sorted(COLUMNS) == sorted(FIELDS)


def test_row_makes_the_equal_record() -> None:
    record = make_record(trace_remote=False, trace_flags=0, variables={"a": [1, 1.0, True, None, "1"]})
    assert row_record(storable_rows([record])[0]) == record


@pytest.mark.parametrize(("stored", "remote"), [(1, True), (0, False), (None, None)])
def test_integer_of_trace_remote_becomes_a_boolean(stored: int | None, remote: bool | None) -> None:
    row = dict(zip(COLUMNS, storable_rows([make_record()])[0], strict=True)) | {"trace_remote": stored}
    assert row_record([row[name] for name in COLUMNS]).trace_remote is remote


def test_row_whose_variables_were_spoilt_is_named() -> None:
    record = make_record()
    *scalars, _ = storable_rows([record])[0]
    with pytest.raises(SchemaError, match=f"record {record.id} are not a JSON object"):
        row_record([*scalars, "[1]"])


def test_field_of_a_wrong_type_is_refused_by_name() -> None:
    record = make_record(status_code="200")  # type: ignore[arg-type]  # SQLite would make a number of it
    with pytest.raises(RecordRefused) as refused:
        storable_rows([record])
    assert refused.value.reasons == {record.id: "status_code is of the type str"}


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        (2**63, "variable 'v' holds an integer beyond 64 bits"),
        (float("inf"), "variable 'v' holds a float that is not finite"),
        ([{"a": b"x"}], "variable 'v' holds a bytes, which is not a JSON value"),
        ({"a": {1: 2}}, "variable 'v' holds a name of the type int"),
        ("\ud800", "one of its texts holds a lone surrogate"),
    ],
    ids=["integer", "float", "bytes", "name", "surrogate"],
)
def test_variable_that_is_no_json_value_is_refused_without_its_value(variable: object, reason: str) -> None:
    record = make_record(variables={"v": variable})  # type: ignore[dict-item]  # that it is none is the point
    with pytest.raises(RecordRefused) as refused:
        storable_rows([make_record(), record])
    assert refused.value.reasons == {record.id: reason}


def test_variable_nested_beyond_what_databases_read_is_refused() -> None:
    record = make_record(variables={"v": _nested(65)})
    with pytest.raises(RecordRefused) as refused:
        storable_rows([record])
    assert refused.value.reasons == {record.id: "variable 'v' holds values nested deeper than 64"}
    just_right = make_record(variables={"v": _nested(64)})
    assert row_record(storable_rows([just_right])[0]) == just_right


def _nested(depth: int) -> JSONValue:
    value: JSONValue = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("name", ["flask_chest", "my-table", "_", "A1", "x" * 53])
def test_plain_name_is_taken_and_quoted(name: str) -> None:
    assert Tables(name, SQLITE).sql("{records} {schema}") == f'"{name}" "{name}_schema"'
    assert Tables(name, replace(SQLITE, quote="`")).sql("{variables}") == f"`{name}_variables`"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1a",
        "-a",
        "a b",
        'a"b',
        "a'b",
        "a`b",
        "a.b",
        "a;b",
        "a\n",
        "a\0",
        "é",
        "x" * 54,
        "sqlite_a",
        "SQLite_a",
    ],
)
def test_odd_name_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Tables(name, SQLITE)
    assert str(refused.value) == (
        "name must be at most 53 ASCII letters, digits, _ or -, begin with a letter or _, "
        f"and not begin with sqlite_, got {name!r}"
    )


def test_longest_name_leaves_room_for_every_derived_one() -> None:
    assert max(map(len, Tables("x" * 53, SQLITE).names.values())) == MAX_IDENTIFIER


def test_reason_of_a_target_is_made_storable() -> None:
    assert storable_reason("bad \ud800 \0 é") == "bad ? \ufffd é"
    assert storable_reason("x" * 100_000) == "x" * MAX_REASON
