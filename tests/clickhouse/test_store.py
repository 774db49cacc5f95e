"""ClickHouse as a store."""

from __future__ import annotations

from aggregation_property import AggregationProperty
from finding_property import FindingProperty
from flask_chest.testing.contracts import AggregationContract, DeletionWithoutOutboxContract, StoreContract
from sampled_property import SampledProperty


class TestClickHouseStore(
    StoreContract,
    DeletionWithoutOutboxContract,
    AggregationContract,
    AggregationProperty,
    FindingProperty,
    SampledProperty,
):
    """Does what every store does."""
