"""Contracts, doubles and helpers for the tests of applications and of own backends.

`recorded`, `RecordingExporter`, `ManualClock` and `make_record` need nothing beside flask_chest. The contracts
are classes of pytest tests to inherit from; pytest is imported when one is first named. So that their assertions
explain themselves, a ``conftest.py`` says ``pytest.register_assert_rewrite("flask_chest.testing")``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from flask_chest.testing.doubles import ManualClock, RecordingExporter, recorded
from flask_chest.testing.records import make_record

if TYPE_CHECKING:
    from flask_chest.testing.contracts import (
        AggregationContract,
        ArchiveContract,
        DeletionContract,
        DeletionWithoutOutboxContract,
        ExporterContract,
        IndexContract,
        LeasesContract,
        OutboxContract,
        SinkContract,
        StoreContract,
    )

__all__ = [
    "AggregationContract",
    "ArchiveContract",
    "DeletionContract",
    "DeletionWithoutOutboxContract",
    "ExporterContract",
    "IndexContract",
    "LeasesContract",
    "ManualClock",
    "OutboxContract",
    "RecordingExporter",
    "SinkContract",
    "StoreContract",
    "make_record",
    "recorded",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        contract: object = getattr(import_module("flask_chest.testing.contracts"), name)
        return contract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
