"""ClickHouse as a store."""

from __future__ import annotations

from finding_property import FindingProperty
from flask_chest.testing.contracts import DeletionWithoutOutboxContract, StoreContract


class TestClickHouseStore(StoreContract, DeletionWithoutOutboxContract, FindingProperty):
    """Does what every store does."""
