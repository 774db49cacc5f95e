"""ClickHouse as a store."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from aggregation_property import AggregationProperty
from finding_property import FindingProperty, IndexedFindingProperty
from flask_chest.testing.contracts import (
    AggregationContract,
    DeletionWithoutOutboxContract,
    IndexContract,
    StoreContract,
)
from index_sql_contract import IndexSQLContract
from sampled_property import SampledProperty
from view_contract import RunSQL, ViewContract


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
