"""The error tree, split by what the caller does next.

::

    ChestError
    ├── ConfigurationError        correct the setting that the message names
    │   └── MissingDriverError    install the extra that the message names
    ├── CapabilityMissing         the store cannot do this; use another store
    ├── VariablesMismatch         correct the class or the code: a value is not as declared
    ├── ContractError             correct the store or exporter of yours that broke its Protocol
    ├── JournalError              count the record as lost: the journal did not take it
    │   ├── JournalFull           the same, until the store takes what waits
    │   └── JournalClosed         hand the record to a new one
    ├── StoreError
    │   ├── StoreUnavailable      keep the records and try again later
    │   ├── QueryTimeout          ask for less, or allow more time: an answer took too long
    │   ├── SchemaError           an operator acts: foreign, older or newer tables
    │   │   └── StoreAbsent       nothing was recorded there yet; the first record makes it
    │   └── RecordRefused         never try the named records again; write the others
    └── ExportError
        ├── TargetUnavailable     keep the records and try again later
        └── RecordsRejected       set the named records aside; deliver the others

A message holds the setting, the bad value and the way out; never a password, a token or a variable's value.
The driver's own exception is the ``__cause__``.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

REPLACEMENT = "\ufffd"
"""Stands in for each character that a terminal or a log would obey."""


class ChestError(Exception):
    """The root of everything that flask_chest raises on purpose."""


class ConfigurationError(ChestError, ValueError):
    """A setting or an argument is wrong."""


class MissingDriverError(ConfigurationError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, *, extra: str) -> None:
        """Name the missing *package* and the *extra* that brings it."""
        super().__init__(f"{package} is not installed; install it, or flask_chest with its extra [{extra}]")


class CapabilityMissing(ChestError):
    """The store has no implementation of an optional capability."""

    def __init__(self, store: object, capability: str) -> None:
        """Name the *store* by its type and the *capability* by its Protocol."""
        super().__init__(
            f"{type(store).__name__} does not implement {capability} (see flask_chest.protocols); "
            "use a store that does, such as SQLiteStore"
        )


class VariablesMismatch(ChestError, ValueError):
    """A variable is not of the type that its class declares."""


class ContractError(ChestError):
    """A store or an exporter did what its Protocol forbids."""


class JournalError(ChestError):
    """The queue between requests and store did not take a record."""


class JournalFull(JournalError):
    """As many bytes wait for the store as the journal may hold."""


class JournalClosed(JournalError):
    """The journal was closed."""


class StoreError(ChestError):
    """A store did not do what it was asked to."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or is locked; what was not kept can be written again later."""


class QueryTimeout(StoreError):
    """The work on an answer took as long as it may, and was ended in the database too; the store is well."""

    def __init__(self, timeout: timedelta, *, unindexed: Sequence[str] = ()) -> None:
        """Name the *timeout*, and variables that were asked for and could have an index."""
        self.timeout = timeout
        """The time that the answer could take."""
        self.unindexed = tuple(unindexed)
        """Variables that were asked for and have no index, where one would help."""
        commands = " and ".join(f"`flask chest index add {name}`" for name in self.unindexed)
        index = f" make an index ({commands})," if commands else ""
        super().__init__(
            f"the answer took longer than {timeout.total_seconds():g} s; ask for a narrower range of time,"
            f"{index} or allow a longer timeout"
        )


class SchemaError(StoreError):
    """The store's tables are absent, another program's, or of a version that this release does not know."""


class StoreAbsent(SchemaError):
    """There is no store yet: the first record makes it, and nothing else does."""


class _Culprits(ChestError):
    """Carries the reason for each record at fault."""

    def __init__(self, message: str, reasons: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.reasons = MappingProxyType(dict(reasons))
        """Record id → reason, without a value; empty where the other side did not say which record it was."""


class RecordRefused(_Culprits, StoreError):
    """The store can never keep the records in *reasons* (id → reason); write the others again.

    Of these nothing was kept, or in MongoDB some: what comes again is kept once.
    """


class ExportError(ChestError):
    """An exporter did not deliver."""


class TargetUnavailable(ExportError):
    """The target is away, too busy, or refuses us as a whole (a wrong token, a missing bucket)."""


class RecordsRejected(_Culprits, ExportError):
    """The target will never take the records in *reasons* (id → reason).

    Deliver the others again: nothing is known of them.
    """


def describe(error: BaseException | None) -> str:
    """Return the message of an error of flask_chest's, and of any other error only its type.

    The message of somebody else's exception may hold a value, a password or a token. Returns an empty text for
    ``None``.
    """
    if error is None:
        return ""
    if type(error).__module__.partition(".")[0] == "flask_chest":
        return printable(str(error))  # a target's answer may stand in it
    return f"{type(error).__module__}.{type(error).__qualname__}"


def printable(text: str) -> str:
    """Return *text* in one line, with a mark in place of whatever a terminal or a log would obey."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else REPLACEMENT for letter in text)
