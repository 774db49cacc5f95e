"""What a chest answers: questions about its records, and what it deletes of them."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import msgspec

from flask_chest.capture.names import known_method
from flask_chest.errors import CapabilityMissing, ConfigurationError
from flask_chest.extension.state import Binding
from flask_chest.protocols import Erasure
from flask_chest.record import JSONValue, Query, Record

READ_PATIENCE_SECONDS = 2.0
"""How long a reader waits for what its own process recorded before."""
_NO_VARIABLES: Mapping[str, JSONValue] = MappingProxyType({})


class ChestReader:
    """The half of `FlaskChest` that asks its store."""

    @abstractmethod
    def binding(self) -> Binding:
        """Give the state for the current app."""

    @abstractmethod
    def bindings(self) -> Sequence[Binding]:
        """Give that of every app: they may share a store."""

    def query(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the record's field
        request_id: str | None = None,
        trace_id: str | None = None,
        route: str | None = None,
        method: str | None = None,
        status_code: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[str, JSONValue] = _NO_VARIABLES,
        limit: int | None = 100,
    ) -> list[Record]:
        """Give the records that match all that is asked, newest first, at most *limit* (``None``: all).

        *since* is inclusive, *until* exclusive; both must know their time zone. *where* asks for variables by
        exact value and type (1, 1.0 and ``True`` differ); it has no index and reads the time range. What this
        process recorded is waited for, up to two seconds. Raises `StoreError` when the store cannot answer.
        """
        return list(
            self.iter(
                id=id,
                request_id=request_id,
                trace_id=trace_id,
                route=route,
                method=method,
                status_code=status_code,
                since=since,
                until=until,
                where=where,
                limit=limit,
            )
        )

    def iter(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the record's field
        request_id: str | None = None,
        trace_id: str | None = None,
        route: str | None = None,
        method: str | None = None,
        status_code: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[str, JSONValue] = _NO_VARIABLES,
        limit: int | None = None,
    ) -> Iterator[Record]:
        """Yield what `query` would give, fetched while you iterate, without a limit unless you set one."""
        question = _question(
            id=id,
            request_id=request_id,
            trace_id=trace_id,
            route=route,
            method=method,
            status_code=status_code,
            since_unix_nano=_unix_nano(since, "since"),
            until_unix_nano=_unix_nano(until, "until"),
            where=where,
            limit=limit,
        )
        if limit is not None and limit < 0:
            raise ConfigurationError(f"limit must be 0 or more, or None for all, got {limit!r}")
        binding = self.binding()
        self._await_own_records()
        return iter(binding.open_store().query(question))

    def trace_link(self, record: Record) -> str | None:
        """Make the address of the trace of *record*; ``None`` if it has none, or ``trace_url`` is not set."""
        template = self.binding().settings.trace_url
        if template is None or record.trace_id is None:
            return None
        return template.replace("{trace_id}", record.trace_id)

    def forget(self, *, where: Mapping[str, JSONValue], request_id: str | None = None) -> int:
        """Delete every record that matches, as a person may ask for; give how many were in the store.

        *where* names variables and their exact values, as for `query`; one at least, or a *request_id*. Deletion
        is final: what waits in a journal, of any process, is not kept either, nor what begins up to a minute
        later, as a clock may be ahead. What the store refused and lies in this machine's journal goes too. What
        exporters have delivered already is theirs to delete. Raises `CapabilityMissing` if the store cannot
        delete.
        """
        if not where and request_id is None:
            raise ConfigurationError('forget needs to know whose records, as in where={"user_id": 7}')
        store = self.binding().open_store()
        if not isinstance(store, Erasure):
            raise CapabilityMissing(store, "Erasure")
        self._await_own_records()
        question = _question(where=where, request_id=request_id, limit=None)
        count = store.forget(question)
        for binding in self.bindings():
            binding.journals.forget_rejected(question)
        return count

    def _await_own_records(self) -> None:
        """Wait a little until what this process recorded is in the store; other apps may share it."""
        deadline = time.monotonic() + READ_PATIENCE_SECONDS
        for binding in self.bindings():
            binding.flush(max(0.0, deadline - time.monotonic()))


def _question(**asked: object) -> Query:
    """Make a question; raise `ConfigurationError` for a value of the wrong type, which would find nothing."""
    method = asked.get("method")
    if isinstance(method, str):
        asked["method"] = known_method(method)
    try:
        return msgspec.convert(asked, Query)
    except msgspec.ValidationError as exc:
        raise ConfigurationError(f"this cannot be asked for: {exc}") from None


def _unix_nano(moment: datetime | None, name: str) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - not all users check types
        raise ConfigurationError(f"{name} must be a datetime, as in datetime.now(UTC), got {moment!r}")
    if moment.tzinfo is None:
        raise ConfigurationError(f"{name} must know its time zone, as in datetime.now(UTC); got {moment!r}")
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_epoch // timedelta(microseconds=1)) * 1_000
