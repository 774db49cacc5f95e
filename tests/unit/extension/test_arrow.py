"""Records as Arrow: what each column holds, and that they come back exactly equal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import duckdb
import msgspec
import polars as pl
import pyarrow as pa
import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from flask_chest import FlaskChest, Indexed, Variables
from flask_chest.declared import declaration_of
from flask_chest.errors import ConfigurationError, QueryTimeout
from flask_chest.extension import arrow
from flask_chest.extension.arrow import Kinds
from flask_chest.protocols import Columns
from flask_chest.record import FIELDS, JSONValue, Query, Record, same_value
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record
from json_values import integers, json_values, texts


class Visit(Variables):
    user_id: Annotated[int, Indexed()]
    plan: Literal["free", "pro"] = "free"
    total: float | None = None
    beta: bool = False
    basket: list[int]


class Order(Variables):
    total: str
    Plan: str
    user_id: int


KINDS: Kinds = arrow.kinds_of([declaration_of(Visit)])
"""Not a thing is said of others."""

names = st.sampled_from(["user_id", "plan", "total", "beta", "basket", "id", "variables", ""]) | texts
optional_texts = st.none() | texts
records = st.builds(
    Record,
    id=st.uuids().map(str),
    request_id=texts,
    time_unix_nano=integers,
    duration_ns=integers,
    method=texts,
    route=optional_texts,
    endpoint=optional_texts,
    status_code=integers,
    instance=texts,
    error=optional_texts,
    trace_id=optional_texts,
    span_id=optional_texts,
    trace_flags=st.none() | integers,
    trace_remote=st.none() | st.booleans(),
    variables=st.dictionaries(names, json_values, max_size=5),
    sample_rate=st.floats(0, 1, exclude_min=True),
)


def batches_of(found: Iterable[Record], kinds: Kinds = KINDS) -> list[pa.RecordBatch]:
    class Found:
        def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
            return found

    return list(arrow.batches(arrow.columns_of(Found(), Query(), timeout=None), kinds))


def rows(found: Sequence[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for batch in found for row in batch.to_pylist()]


@pytest.mark.slow
@given(st.lists(records, max_size=5), st.sampled_from([KINDS, {}]))
@settings(deadline=None)
def test_records_come_back_exactly_equal(found: list[Record], kinds: Kinds) -> None:
    back = [record for batch in batches_of(found, kinds) for record in arrow.records_of(batch)]
    assert back == found
    assert list(map(written, back)) == list(map(written, found))  # the sign of -0.0 too


def written(record: Record) -> bytes:
    return msgspec.json.encode(record, order="sorted")


def test_variables_are_as_they_were_written_where_nothing_is_declared() -> None:
    (row,) = rows(batches_of([make_record(variables={"b": 1, "a": {"y": 1, "x": 2}})], {}))
    assert row["variables"] == '{"b":1,"a":{"y":1,"x":2}}'


@pytest.mark.parametrize("kinds", [KINDS, {}], ids=["declared", "nothing declared"])
@pytest.mark.parametrize("text", ["[1]", '{"a":', ""])
def test_variables_that_are_no_object_of_json_are_refused(text: str, kinds: Kinds) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(arrow.batches([chunk_with(text)], kinds))


def test_variables_that_no_record_can_have_are_refused_when_they_are_read_back() -> None:
    (batch,) = arrow.batches([chunk_with('{"a":1e999}')], {})
    with pytest.raises(ConfigurationError, match="it has variables that no record can have"):
        arrow.records_of(batch)


def chunk_with(variables: str) -> Columns:
    record = msgspec.structs.asdict(make_record()) | {"variables": variables}
    return {name: [record[name]] for name in FIELDS}


@pytest.mark.slow
@given(found=st.lists(records, min_size=1, max_size=3))
@settings(deadline=None, max_examples=50)
def test_records_come_back_from_a_file(tmp_path_factory: pytest.TempPathFactory, found: list[Record]) -> None:
    path = tmp_path_factory.mktemp("files") / "records.parquet"
    arrow.write_parquet(path, batches_of(found), KINDS)
    with parquet.ParquetFile(path) as file:
        assert [record for batch in file.iter_batches(2) for record in arrow.records_of(batch)] == found


@pytest.mark.parametrize(
    ("value", "column", "others"),
    [
        ({"user_id": 7}, {"user_id": 7}, {}),
        ({"user_id": 7.0}, {"user_id": None}, {"user_id": 7.0}),
        ({"user_id": True}, {"user_id": None}, {"user_id": True}),
        ({"user_id": None}, {"user_id": None}, {"user_id": None}),
        ({"total": 7.5}, {"total": 7.5}, {}),
        ({"total": 7}, {"total": 7.0}, {"total": 7}),
        ({"total": "7"}, {"total": None}, {"total": "7"}),
        ({"beta": True}, {"beta": True}, {}),
        ({"beta": 1}, {"beta": None}, {"beta": 1}),
        ({"plan": "a\0b"}, {"plan": "a\0b"}, {}),
        ({"plan": "unknown"}, {"plan": "unknown"}, {}),
        ({"basket": [1, 2]}, {"basket": "[1,2]"}, {"basket": [1, 2]}),
        ({"b": 1, "a": {"y": 1, "x": 2}}, {"user_id": None}, {"a": {"x": 2, "y": 1}, "b": 1}),
        ({}, {"user_id": None, "total": None}, {}),
    ],
    ids=ascii,
)
def test_variable_is_in_its_column_if_it_is_as_declared_and_in_the_others_if_not_exactly(
    value: Mapping[str, JSONValue], column: Mapping[str, JSONValue], others: Mapping[str, JSONValue]
) -> None:
    (row,) = rows(batches_of([make_record(variables=value)]))
    assert same_value({name: row[name] for name in column}, dict(column))
    assert row["variables"] == msgspec.json.encode(others).decode()


def test_variables_that_two_classes_declare_differently_have_no_column() -> None:
    kinds = arrow.kinds_of([declaration_of(Visit), declaration_of(Order)])
    assert kinds == {"user_id": "int", "beta": "bool", "basket": "json"}


def test_columns_have_the_names_of_fields_and_variables() -> None:
    schema = arrow.schema_of(KINDS)
    others = [name for name in FIELDS if name != "variables"]
    assert schema.names == [*others, "user_id", "plan", "total", "beta", "basket", "variables"]
    assert str(schema.field("time_unix_nano").type) == "timestamp[ns, tz=UTC]"
    assert str(schema.field("duration_ns").type) == "duration[ns]"
    for name in ("method", "route", "instance"):
        assert str(schema.field(name).type).startswith("dictionary<values=string")


def test_batch_has_fifty_thousand_records_or_fewer_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "BATCH", 1_500)
    monkeypatch.setattr(arrow, "BATCH_BYTES", 1 << 20)
    small = [make_record() for _ in range(3_200)]
    assert [batch.num_rows for batch in batches_of(small)] == [1_500, 1_500, 200]
    large = [make_record(variables={"v": "x" * 1_000}) for _ in range(3_000)]
    found = batches_of(large)
    assert [record for batch in found for record in arrow.records_of(batch)] == large
    assert max(batch.num_rows for batch in found) < 1_500


def test_columns_that_other_tools_made_are_read_back(tmp_path: Path) -> None:
    records = [make_record(variables={"user_id": number, "x": [number]}, route=None) for number in range(3)]
    path = tmp_path / "records.parquet"
    arrow.write_parquet(path, batches_of(records), KINDS)
    duckdb.sql(f"COPY (FROM '{path}') TO '{tmp_path}/duckdb.parquet'")
    pl.read_parquet(path).write_parquet(tmp_path / "polars.parquet")
    for tool in ("duckdb", "polars"):
        with parquet.ParquetFile(tmp_path / f"{tool}.parquet") as file:
            assert [record for batch in file.iter_batches() for record in arrow.records_of(batch)] == records


def test_columns_of_something_else_are_refused() -> None:
    (batch,) = batches_of([make_record()])
    lacking = [name for name in batch.schema.names if name not in {"id", "method"}]
    other = pa.RecordBatch.from_arrays([batch.column(name) for name in lacking], names=lacking)
    with pytest.raises(ConfigurationError, match="it has no column id, method"):
        arrow.records_of(other)


@pytest.fixture(params=["memory", "sqlite"])
def chest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FlaskChest]:
    app = Flask("shop")
    store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "chest.db")
    store.open()
    store.write([make_record(variables={"user_id": number % 7, "x": number}) for number in range(1_200)])
    with closing(FlaskChest(app, store=store, tracked_vars=Visit)) as chest, app.app_context():
        yield chest


def test_stream_holds_what_the_question_asks_for(chest: FlaskChest) -> None:
    with chest.to_arrow() as reader:
        found = [record for batch in reader for record in arrow.records_of(batch)]
    assert found == chest.query(limit=None)
    with chest.to_arrow(where={"user_id": 3}, limit=5) as reader:
        assert [row["user_id"] for row in reader.read_all().to_pylist()] == [3] * 5
    with chest.to_arrow(where={"user_id": "3"}) as reader:
        assert reader.read_all().num_rows == 0
    with pytest.raises(ConfigurationError, match="limit must be 0 or more"):
        chest.to_arrow(limit=-1)


def test_time_limit_of_a_stream_is_that_of_a_query(chest: FlaskChest) -> None:
    with pytest.raises(QueryTimeout), chest.to_arrow(timeout=timedelta(microseconds=1)) as reader:
        reader.read_all()


def test_polars_and_duckdb_take_the_stream(chest: FlaskChest) -> None:
    expected = [(record.time_unix_nano, record.variables["user_id"]) for record in chest.iter()]
    frame = pl.DataFrame(chest.to_arrow())
    assert list(zip(frame["time_unix_nano"].cast(pl.Int64), frame["user_id"], strict=True)) == expected
    found = duckdb.from_arrow(chest.to_arrow()).project("epoch_ns(time_unix_nano), user_id")
    assert found.fetchall() == expected


def test_file_of_arrow_is_read_by_others(chest: FlaskChest, tmp_path: Path) -> None:
    path = tmp_path / "records.arrow"
    found = list(chest.to_arrow())
    arrow.write_arrow(path, found, KINDS)
    (table,) = (ipc.open_file(path).read_all(),)
    assert [row for batch in table.to_batches() for row in arrow.records_of(batch)] == chest.query(limit=None)
    assert pl.read_ipc(path)["route"].to_list() == ["/"] * 1_200


@pytest.mark.slow
def test_package_that_is_missing_is_named_with_its_extra() -> None:
    code = """
import sys
sys.modules["pyarrow"] = None
from flask import Flask
from flask_chest import FlaskChest
from flask_chest.stores.memory import MemoryStore
app = Flask("shop")
FlaskChest(app, store=MemoryStore).to_arrow()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pyarrow is not installed; install it, or flask_chest with its extra [arrow]" in result.stderr
