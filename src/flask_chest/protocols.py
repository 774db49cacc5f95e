"""The seams: what a store, an exporter and a request-id generator must offer.

They are Protocols, so a class of your own need not inherit from them; one that does cannot be made while a member
is missing. The capabilities (`Outbox` and what follows it) are optional. They are looked for with
``isinstance``, which sees names alone: mypy checks the signatures, `flask_chest.testing` the behaviour.

Batches and names come by position, so that an implementation may call them what it likes.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from flask_chest.declared import Declaration
from flask_chest.errors import ContractError
from flask_chest.record import JSONValue, Query, Record

if TYPE_CHECKING:
    from flask_chest.aggregates import AggregateQuery, Answer

StartAt: TypeAlias = Literal["beginning", "now"]

PartitionBy: TypeAlias = Literal["day", "week"]
"""Span of time for which a table of records has a partition, by UTC; weeks begin on Monday."""

Columns: TypeAlias = Mapping[str, Sequence[object]]
"""Name of each field of a record → its values in some records; variables are JSON, of `encode_variables`."""


class Sink(Protocol):
    """Takes records: enough for the target of an exporter."""

    @abstractmethod
    def write(self, records: Sequence[Record], /) -> None:
        """Keep *records* durably; those whose id is kept already are skipped.

        Returning means kept, and what is kept comes back equal: a record that cannot, such as one with a lone
        surrogate or an integer beyond 64 bits, is refused. After `StoreUnavailable` some may be kept and
        writing all again is safe; after `RecordRefused` the named records will never be taken. Anything but
        ``None`` as a result is an error of the implementation: it is how an ``async def`` by mistake looks.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and files; may be called again, and from another thread."""


class Reader(Protocol):
    """Answers questions about records."""

    @abstractmethod
    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        """Yield the records that match, newest first by (time, id), at most ``query.limit`` of them.

        What matches is defined by `Query.matches`. Records are fetched while the caller iterates. The store works
        on the answer for no longer than *timeout* in all; the time in which the caller looks at records does not
        count. After that it raises `QueryTimeout`, and no work is left behind; what came before is valid.
        """


class Store(Sink, Reader, Protocol):
    """Keeps records and gives them back: enough for a chest.

    One store object serves many threads. It may cross a fork; the child must then make its own connections.
    """

    @abstractmethod
    def open(self) -> None:
        """Create or migrate what the store needs; safe again, and in many processes at once.

        No other method creates anything: on a store that never was opened they raise `SchemaError`.
        """

    @abstractmethod
    def status(self) -> StoreStatus:
        """Count what is kept."""


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a store holds."""

    description: str
    """Kind and place for people, as in ``SQLite /var/lib/app/db.sqlite3``; never a password."""
    records: int
    oldest_unix_nano: int | None = None
    """The least `Record.time_unix_nano` that is kept; ``None`` where there is no record."""
    newest_unix_nano: int | None = None
    size_bytes: int | None = None
    """``None`` where the store cannot tell."""
    conflicts: int = 0
    """Writes in this process that brought a kept id with other content; the first content stays."""


@runtime_checkable
class Addressed(Protocol):
    """Says where it keeps records, so that a journal is replayed only into the store that it was made for."""

    @property
    @abstractmethod
    def address(self) -> str | None:
        """Kind and place, as in ``sqlite:/var/lib/app/db.sqlite3#flask_chest``; never a password.

        With all else that chooses the tables, such as a role. ``None`` where nothing outlives the process: then
        no journal does either.
        """


@runtime_checkable
class Identified(Addressed, Protocol):
    """Also tells another store at the same address, as after a restart of the server with an empty disk."""

    @property
    @abstractmethod
    def place(self) -> str:
        """What of the address stays when only its parameters change; it names the folder of the journal."""

    @property
    @abstractmethod
    def store_id(self) -> str | None:
        """32 hexadecimal digits, made with the tables; ``None`` as long as they were not looked at."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The right to deliver *records* for one exporter until a deadline."""

    exporter: str
    records: Sequence[Record]
    """Records in the order in which they were stored, at least one."""
    token: int
    """Counted up at every claim: the only fence against a former holder."""
    deadline_unix_nano: int
    """End of the claim by the store's clock. After it another process may claim, which voids this claim."""


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody else delivers for this exporter."""

    holder: str
    """Name of the holder for people; in containers many processes share it."""
    until_unix_nano: int


@runtime_checkable
class Outbox(Protocol):
    """Hands out what an exporter has not had yet, to one process at a time.

    Each exporter, known by its name, has its own place in the one order in which records became visible, so
    that no exporter hides a record from another and none that is committed late is skipped.
    """

    @abstractmethod
    def claim(self, exporter: str, /, *, limit: int, lease: timedelta) -> Claim | Busy | None:
        """Take the next records, at most *limit*, for the time of *lease*; ``None`` when nothing is pending.

        A batch that was claimed and neither acknowledged nor renewed in time is claimed again as it was,
        whatever *limit* says now. An exporter that is not registered is, from the beginning.
        """

    @abstractmethod
    def renew(self, claim: Claim, /, *, lease: timedelta) -> bool:
        """Move the deadline to *lease* from now; False when the claim is lost or has ended."""

    @abstractmethod
    def acknowledge(self, claim: Claim, /, *, rejected: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Count the claimed records as had and end the claim; set *rejected* (id → reason) aside.

        False, and nothing is changed, when the claim is lost. Acknowledging again is harmless.
        """

    @abstractmethod
    def release(self, claim: Claim, /, *, error: str | None = None) -> None:
        """End the claim without delivery, for the reason *error*: the same batch can be claimed at once."""


class ExporterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where one exporter stands."""

    name: str
    backlog: int
    """Records that it has not had yet."""
    rejected: int
    last_seen_unix_nano: int
    last_success_unix_nano: int | None = None
    next_unix_nano: int | None = None
    """Start time of the oldest pending record, or ``None`` if nothing is pending."""
    last_error: str | None = None
    """Error of its last delivery, or ``None`` if that succeeded."""
    holder: str | None = None
    lease_until_unix_nano: int | None = None


@runtime_checkable
class ExporterRegistry(Protocol):
    """Knows the exporters of a store."""

    @abstractmethod
    def register(self, exporter: str, /, *, start_at: StartAt = "beginning") -> None:
        """Make *exporter* known; one that is known stays where it is.

        ``"beginning"`` is the oldest record that is still kept, ``"now"`` skips all that is kept.
        """

    @abstractmethod
    def exporters(self, *, timeout: timedelta | None = None) -> Sequence[ExporterStatus]:
        """List the known exporters by name; past *timeout*, raise `QueryTimeout`."""

    @abstractmethod
    def drop(self, exporter: str, /) -> bool:
        """Forget *exporter*, its place and what was set aside for it; False when it is not known."""


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """A record that an exporter's target will never take."""

    exporter: str
    record_id: str
    reason: str
    time_unix_nano: int


@runtime_checkable
class Rejections(Protocol):
    """Keeps what was set aside."""

    @abstractmethod
    def rejections(self, exporter: str, /, *, timeout: timedelta | None = None) -> Iterable[Rejection]:
        """Yield what was set aside for *exporter*, oldest first; past *timeout*, raise `QueryTimeout`."""

    @abstractmethod
    def discard(self, exporter: str, record_ids: Sequence[str], /) -> int:
        """Forget that these records were set aside for *exporter*; return how many were."""


@runtime_checkable
class Retention(Protocol):
    """Deletes what is old enough.

    Deletion is final: a later ``write`` of what `prune` deleted, as from a journal that is replayed, keeps
    nothing and raises nothing.
    """

    @abstractmethod
    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:
        """Delete the oldest records that began before that time, at most *limit*; return how many those were.

        With *keep_unexported*, none that a registered exporter has not had. Fewer than *limit* mean that it is
        done: from then on nothing that began before that time is taken any more. A time ahead of the store's
        clock is taken for that, and one that was noted by a clock ahead is not looked at.

        A store with partitions drops whole ones: the last of them passes *limit*, and the time is rounded down to
        what `Partitioned.reach` returns.
        """

    @abstractmethod
    def boundary(self, newest: int, /) -> int | None:
        """Return the time before which all but the *newest* records began, or ``None`` if there are no others.

        Records that begin ahead of the store's clock are not among them.
        """


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the records of a store are parted by time."""

    wanted: PartitionBy | None = None
    """What the store was asked for, which is for new tables alone."""
    by: PartitionBy | None = None
    """What there is a partition for; ``None`` where all records are in one table."""
    count: int = 0
    until_unix_nano: int | None = None
    """Time up to which, from now on, there is a partition for each span."""

    def ends_before(self, time_unix_nano: int, /) -> bool:
        """Return whether there are partitions, and none for that time or for one before it."""
        return self.until_unix_nano is not None and self.until_unix_nano < time_unix_nano


@runtime_checkable
class Partitioned(Protocol):
    """May keep records in partitions by time, which retention drops as a whole."""

    @abstractmethod
    def partitions(self) -> PartitionStatus:
        """Return how the records are parted, and up to when."""

    @abstractmethod
    def partitions_sql(self) -> str:
        """Return the statements that make the partitions that are missing from now on, or an empty text."""

    @abstractmethod
    def reach(self, before_unix_nano: int, /) -> int:
        """Return the time before which `Retention.prune` deletes when it is given this one, or an earlier one."""


@runtime_checkable
class Leases(Protocol):
    """Lets one process at a time have a task, such as retention."""

    @abstractmethod
    def hold(self, task: str, /, *, owner: str, lease: timedelta) -> bool:
        """Lease *task* to *owner*, a text of no other process, for the time of *lease* by the store's clock.

        True also where *owner* has it already; False while another does.
        """

    @abstractmethod
    def let_go(self, task: str, /, *, owner: str) -> None:
        """Let others have *task* at once, if *owner* has it."""

    @abstractmethod
    def now_unix_nano(self) -> int:
        """Read the store's clock."""


@runtime_checkable
class HasNeighbours(Protocol):
    """Keeps records in a database that may have tables of others."""

    @abstractmethod
    def has_table(self, name: str, /) -> bool:
        """Return whether the database has a table *name*, whoever made it."""


@runtime_checkable
class HostClocked(Protocol):
    """Tells the time by the clock of its host, which somebody may set, and keeps what it told before."""

    @abstractmethod
    def clock_note(self) -> str | None:
        """Return the note that was made last, or ``None``."""

    @abstractmethod
    def note_clock(self, note: str, /) -> None:
        """Keep *note* in place of the former one."""


class CutOff(msgspec.Struct, frozen=True, kw_only=True):
    """Up to when retention has deleted, and what came too late."""

    before_unix_nano: int
    dropped: int = 0
    """Records that began before and came later, from any process."""
    last_dropped_unix_nano: int | None = None
    """Time at which the last of them came."""


@runtime_checkable
class CountsDropped(Protocol):
    """Counts what it did not keep."""

    @abstractmethod
    def cut_off(self) -> CutOff | None:
        """Return the time up to which retention has deleted, or ``None`` if it never has."""

    @property
    @abstractmethod
    def dropped(self) -> int:
        """Records that `Sink.write` has left out in this process, as they were deleted before they came."""


@runtime_checkable
class Erasure(Protocol):
    """Deletes what belongs to somebody."""

    @abstractmethod
    def forget(self, query: Query, /) -> int:
        """Delete every record that matches, whatever its exporters had, and return how many those were.

        ``query.limit`` is not looked at. Deletion is final: of what began before this call, a later ``write``
        keeps nothing that matches. So that it holds under clocks that are ahead, it goes up to the newest record
        that is stored, and to a minute after this call. The values of *query* are not kept.
        """


@runtime_checkable
class Aggregation(Protocol):
    """Measures all records that match a question, in groups and spans of time, in the database."""

    @abstractmethod
    def aggregate(self, query: AggregateQuery, /, *, timeout: timedelta | None = None) -> Answer:
        """Return the answer, of one moment, which is the same on every store.

        Raises `QueryTimeout` where it takes longer than *timeout*; no work is left behind in the database then.
        """


class VariableIndex(msgspec.Struct, frozen=True, kw_only=True):
    """An index by which a database finds records by a variable."""

    variable: str
    name: str
    """Name of the index in the database."""
    valid: bool = True
    """Whether the database uses it; a build that was interrupted may leave one behind that it does not."""


@runtime_checkable
class ColumnReader(Protocol):
    """Hands out many records by column, which takes a third of the time if nobody looks at them one by one."""

    @abstractmethod
    def columns(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Columns]:
        """Yield the columns of what `Reader.query` yields, in its order, hundreds of records at a time.

        *query* asks for time alone: see `Query.asks_for_time_alone`. None of what is yielded is empty.
        """


@runtime_checkable
class LoadsHistory(Protocol):
    """Takes records that were kept elsewhere before, and that no exporter is to deliver again."""

    @abstractmethod
    def load(self, records: Sequence[Record], /) -> None:
        """Keep *records* as `Sink.write` does, before the beginning of every exporter, also of those to come."""


@runtime_checkable
class Backup(Protocol):
    """Copies itself into a file, and back; a server has tools of its own for that."""

    @abstractmethod
    def backup(self, path: Path, /, *, progress: Callable[[float], object]) -> None:
        """Write all that is stored when it begins into the file *path*, beside others that write.

        Tell *progress* the share that is written, from 0 to 1.
        """

    @abstractmethod
    def restore(self, path: Path, /, *, overwrite: bool = False) -> None:
        """Take the content of the file *path* in place of its own, all of it or nothing.

        Without *overwrite*, only where there is nothing yet: else it raises `ConfigurationError`. Raises
        `SchemaError` for a file that is damaged or has no chest of this name.
        """


@runtime_checkable
class VariableIndexes(Protocol):
    """Makes indexes by which a query with ``where`` reads only the records that may match.

    A variable can be indexed if its name is an identifier of ASCII letters, digits and underscores, of at most 63
    characters; another one raises `ConfigurationError`. No index makes a write fail, whatever the value.
    """

    @abstractmethod
    def indexes(self) -> Sequence[VariableIndex]:
        """Return the indexes on variables, by name of the variable; other indexes are not mentioned."""

    @abstractmethod
    def add_index(self, variable: str, /) -> bool:
        """Make the index on *variable*, and return whether there was none; one that is not valid is made again.

        Other processes go on writing meanwhile where the database can do that; where it cannot, their records
        wait in their journals.
        """

    @abstractmethod
    def index_progress(self, variable: str, /) -> float | None:
        """Return the share of the index on *variable* that is made, from 0 to 1, while `add_index` runs.

        Return ``None`` where nobody makes it, or the database does not say.
        """

    @abstractmethod
    def remove_index(self, variable: str, /) -> bool:
        """Remove the index on *variable*, and return whether there was one."""


@runtime_checkable
class IndexesBySQL(VariableIndexes, Protocol):
    """Makes its indexes by statements, which somebody else may run in its place."""

    @abstractmethod
    def index_sql(self, variable: str, /) -> str:
        """Return the statements that `add_index` would run now, each to its end, or an empty text.

        They are for whoever reviews them, or may change tables where the app may not, to be run one by one and
        outside of a transaction.
        """


ViewState: TypeAlias = Literal["absent", "same", "different"]
"""Whether a view is there, and whether it is as its class declares."""


@runtime_checkable
class FlatViews(Protocol):
    """Shows records as a table: the columns of a record, and a typed one for each variable that a class declares.

    A column is NULL where the record lacks the variable, or has one of another kind.
    """

    @abstractmethod
    def view_name(self, declaration: Declaration, /) -> str:
        """Return the name of the view; raise `ConfigurationError` if it is too long for the database."""

    @abstractmethod
    def view_sql(self, declaration: Declaration, /) -> str:
        """Return the statements that `make_view` runs, for whoever reviews them."""

    @abstractmethod
    def view_state(self, declaration: Declaration, /) -> ViewState:
        """Return whether the view is there, and as it is declared; "same" where this role may not see that.

        Raises `SchemaError` if something else has its name.
        """

    @abstractmethod
    def make_view(self, declaration: Declaration, /) -> None:
        """Make the view, or put it in the place of an earlier one; nothing is done where it is the same."""


class Exporter(Protocol):
    """Delivers records somewhere else."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The exporter's identity in the store: its place in the outbox is kept under it."""

    @abstractmethod
    def export(self, records: Sequence[Record], /) -> None:
        """Deliver *records*; must end within a time of its own, without a call for help.

        Returning means delivered. `TargetUnavailable` keeps the batch for later; `RecordsRejected` names
        those that will never be taken, and the others come again. A repeated delivery must change nothing
        where the target can tell one. No records deliver nothing; an exporter that knows that it cannot
        deliver may say so then too, which is how the doctor asks.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections; may be called again."""


class RequestIdGenerator(Protocol):
    """Makes the id of the current request."""

    @abstractmethod
    def __call__(self) -> str:
        """Return an id of at most 255 characters; a longer one is replaced by its digest."""


class VariablesObserver(Protocol):
    """Is told the variables of each request while its span is open."""

    @abstractmethod
    def observe(self, variables: Mapping[str, JSONValue], environ: Mapping[str, object], /) -> int:
        """Look at the captured *variables*; return how many there was no room for.

        It is called again when an error made them be captured again.
        """


def hand_over(take: Callable[[Sequence[Record]], object], records: Sequence[Record], /) -> None:
    """Call a sink's ``write`` or an exporter's ``export``; `ContractError` unless it returns ``None``.

    An ``async def`` in its place returns a coroutine that nobody awaits: the records would count as kept.
    """
    result = take(records)
    if inspect.iscoroutine(result):
        result.close()
    if result is not None:
        name = getattr(take, "__qualname__", repr(take))
        raise ContractError(f"{name} returned {type(result).__name__}, must be None (and not async)")
