"""Keep what ``flask.g`` knows about each request: typed, in your own database, and delivered on schedule."""

from typing import TYPE_CHECKING

from flask_chest.background.export_run import ExportReport
from flask_chest.background.stats import ChestStats, Health
from flask_chest.capture.redaction import Redact
from flask_chest.capture.tracking import TrackedVars
from flask_chest.declared import Indexed, Typed, Unit, Variables, variables
from flask_chest.errors import (
    CapabilityMissing,
    ChestError,
    ConfigurationError,
    ContractError,
    ExportError,
    MissingDriverError,
    QueryTimeout,
    RecordRefused,
    RecordsRejected,
    SchemaError,
    StoreAbsent,
    StoreError,
    StoreUnavailable,
    TargetUnavailable,
    VariablesMismatch,
)
from flask_chest.extension.chest import FlaskChest, current_request_id, skip
from flask_chest.extension.databases import (
    FlaskChestClickHouse,
    FlaskChestMongoDB,
    FlaskChestMySQL,
    FlaskChestPostgreSQL,
    FlaskChestSQLite,
)
from flask_chest.protocols import Exporter, RequestIdGenerator, Sink, Store, StoreStatus
from flask_chest.record import (
    Condition,
    JSONValue,
    Query,
    Record,
    Where,
    ge,
    gt,
    is_set,
    le,
    lt,
    one_of,
)

if TYPE_CHECKING:
    from flask_chest.aggregates import (
        Answer,
        Bin,
        Bucket,
        Count,
        Distinct,
        ErrorRate,
        Histogram,
        Maximum,
        Mean,
        Measure,
        Minimum,
        NoScalar,
        Percentiles,
        Row,
        Sum,
        Variable,
    )

__version__ = "1.0.0rc1"

__all__ = [
    "Answer",
    "Bin",
    "Bucket",
    "CapabilityMissing",
    "ChestError",
    "ChestStats",
    "Condition",
    "ConfigurationError",
    "ContractError",
    "Count",
    "Distinct",
    "ErrorRate",
    "ExportError",
    "ExportReport",
    "Exporter",
    "FlaskChest",
    "FlaskChestClickHouse",
    "FlaskChestMongoDB",
    "FlaskChestMySQL",
    "FlaskChestPostgreSQL",
    "FlaskChestSQLite",
    "Health",
    "Histogram",
    "Indexed",
    "JSONValue",
    "Maximum",
    "Mean",
    "Measure",
    "Minimum",
    "MissingDriverError",
    "NoScalar",
    "Percentiles",
    "Query",
    "QueryTimeout",
    "Record",
    "RecordRefused",
    "RecordsRejected",
    "Redact",
    "RequestIdGenerator",
    "Row",
    "SchemaError",
    "Sink",
    "Store",
    "StoreAbsent",
    "StoreError",
    "StoreStatus",
    "StoreUnavailable",
    "Sum",
    "TargetUnavailable",
    "TrackedVars",
    "Typed",
    "Unit",
    "Variable",
    "Variables",
    "VariablesMismatch",
    "Where",
    "current_request_id",
    "ge",
    "gt",
    "is_set",
    "le",
    "lt",
    "one_of",
    "skip",
    "variables",
]


if not TYPE_CHECKING:  # to a type checker, every name would be there

    def __getattr__(name: str) -> object:
        """Import what is asked of many records when it is first named: most processes only record."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from flask_chest import aggregates  # noqa: PLC0415 - as above

        return getattr(aggregates, name)


def __dir__() -> list[str]:
    """Return all names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
