"""ClickHouse as a store."""

from __future__ import annotations

from aggregation_property import AggregationProperty
from finding_property import FindingProperty, IndexedFindingProperty
from flask_chest.testing.contracts import (
    AggregationContract,
    DeletionWithoutOutboxContract,
    IndexContract,
    StoreContract,
)
from sampled_property import SampledProperty


class TestClickHouseStore(
    StoreContract,
    DeletionWithoutOutboxContract,
    AggregationContract,
    AggregationProperty,
    FindingProperty,
    IndexContract,
    IndexedFindingProperty,
    SampledProperty,
):
    """Does what every store does."""
