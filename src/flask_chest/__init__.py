"""Keep what ``flask.g`` knows about each request: typed, in your own database, and delivered on schedule."""

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

__version__ = "0.1.0"

__all__ = [
    "CapabilityMissing",
    "ChestError",
    "ChestStats",
    "Condition",
    "ConfigurationError",
    "ContractError",
    "ExportError",
    "ExportReport",
    "Exporter",
    "FlaskChest",
    "FlaskChestMongoDB",
    "FlaskChestMySQL",
    "FlaskChestPostgreSQL",
    "FlaskChestSQLite",
    "Health",
    "Indexed",
    "JSONValue",
    "MissingDriverError",
    "Query",
    "Record",
    "RecordRefused",
    "RecordsRejected",
    "Redact",
    "RequestIdGenerator",
    "SchemaError",
    "Sink",
    "Store",
    "StoreAbsent",
    "StoreError",
    "StoreStatus",
    "StoreUnavailable",
    "TargetUnavailable",
    "TrackedVars",
    "Typed",
    "Unit",
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
