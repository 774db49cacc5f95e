"""ClickHouse as a store."""

from __future__ import annotations

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from aggregation_property import AggregationProperty
from finding_property import FindingProperty, IndexedFindingProperty
from flask_chest.aggregates import AggregateQuery, Mean, Variable
from flask_chest.declared import Declaration
from flask_chest.record import Query
from flask_chest.stores.clickhouse import ClickHouseStore
from flask_chest.testing.contracts import (
    AggregationContract,
    DeletionWithoutOutboxContract,
    IndexContract,
    StoreContract,
)
from flask_chest.testing.records import make_record
from index_sql_contract import IndexSQLContract
from sampled_property import SampledProperty
from view_contract import NextVisit, RunSQL, ViewContract, Visit


class TestClickHouseStore(
    StoreContract,
    DeletionWithoutOutboxContract,
    AggregationContract,
    AggregationProperty,
    FindingProperty,
    IndexContract,
    IndexedFindingProperty,
    SampledProperty,
    IndexSQLContract,
    ViewContract,
):
    """Does what every store does, but deliver: it has no outbox."""

    quote = "`"

    @pytest.fixture
    def run_sql(self, client: Client) -> RunSQL:
        # Only between quotes may a name hold other letters than those of ASCII.
        return lambda sql: client.query(sql.replace("größe", "`größe`")).result_rows

    def test_records_of_one_moment_are_no_conflict(self, store: ClickHouseStore) -> None:
        first, second, third = (make_record(time_unix_nano=7) for _ in range(3))
        store.write([first, second])
        store.write([third])
        assert store.status().conflicts == 0
        changed = msgspec.structs.replace(second, status_code=500)
        store.write([changed, make_record(time_unix_nano=7)])
        assert store.status().conflicts == 1
        assert second in store.query(Query())

    def test_what_comes_again_is_not_inserted_again(self, client: Client, store: ClickHouseStore) -> None:
        """So there is nothing that a merge could hide before it is compared."""
        first, other = make_record(), make_record()
        store.write([first, other])
        changed = msgspec.structs.replace(first, status_code=500)
        store.write([changed, other, late := make_record(time_unix_nano=7)])
        assert store.status().conflicts == 1
        assert client.command(f"SELECT count() FROM {store._database.records}") == 3
        assert list(store.query(Query())) == [other, first, late]

    def test_numbers_of_a_declared_variable_are_read_from_a_column_of_their_own(
        self, client: Client, store: ClickHouseStore
    ) -> None:
        mean = Mean(Variable("total"))
        query = AggregateQuery(measures=(mean,))
        store.write([make_record(variables={"total": 1.5})])  # so that one comes before the column
        store.make_view(Declaration(Visit))
        store.write([make_record(variables={"total": total}) for total in (3, "dear", None)])
        assert store.aggregate(query).all[mean] == 2.25
        records = store._database.records
        client.command(f"ALTER TABLE {records} MODIFY COLUMN float_total Nullable(Float64) MATERIALIZED 7")
        client.command(f"ALTER TABLE {records} MATERIALIZE COLUMN float_total", settings={"mutations_sync": 2})
        assert store.aggregate(query).all[mean] == 7

    def test_view_has_columns_of_the_declared_types_in_the_table(
        self, client: Client, store: ClickHouseStore, name: str
    ) -> None:
        store.make_view(Declaration(Visit))
        store.make_view(Declaration(NextVisit))
        rows = client.query(
            "SELECT name, type FROM system.columns WHERE table = {name:String} AND default_kind = 'MATERIALIZED'",
            parameters={"name": name},
        ).result_rows
        assert {str(column): kind for column, kind in rows} == {
            "bool_flag": "Nullable(Bool)",
            "int_user_id": "Nullable(Int64)",
            "text_user_id": "Nullable(String)",
            "float_total": "Nullable(Float64)",
            "text_plan": "Nullable(String)",
            "text_at": "Nullable(String)",
            "int_größe": "Nullable(Int64)",
        }

    @pytest.mark.parametrize("step", [1, 10_000_000_000], ids=["one span", "many spans"])
    def test_records_far_apart_are_told_from_those_that_are_there(
        self, store: ClickHouseStore, step: int
    ) -> None:
        records = [make_record(time_unix_nano=1 + number * step) for number in range(60)]
        store.write(records[::2])
        store.write(records)
        store.write([msgspec.structs.replace(each, status_code=500) for each in records])
        assert store.status().conflicts == 60
        assert list(store.query(Query(limit=None))) == records[::-1]
