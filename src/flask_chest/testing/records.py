"""Records for tests."""

from __future__ import annotations

from collections.abc import Mapping

from flask_chest.record import JSONValue, Record
from flask_chest.request_ids import new_record_id, unique_time_unix_nano, uuid4_request_id


def make_record(
    *,
    id: str | None = None,  # noqa: A002 - the field's name
    request_id: str | None = None,
    time_unix_nano: int | None = None,
    duration_ns: int = 1_500_000,
    method: str = "GET",
    route: str | None = "/",
    endpoint: str | None = "index",
    status_code: int = 200,
    instance: str = "test:0",
    error: str | None = None,
    trace_id: str | None = None,
    span_id: str | None = None,
    trace_flags: int | None = None,
    trace_remote: bool | None = None,
    variables: Mapping[str, JSONValue] | None = None,
    sample_rate: float = 1.0,
) -> Record:
    """Make a record as a request leaves it: with new ids, later than the one before, one variable."""
    return Record(
        id=new_record_id() if id is None else id,
        request_id=uuid4_request_id() if request_id is None else request_id,
        time_unix_nano=unique_time_unix_nano() if time_unix_nano is None else time_unix_nano,
        duration_ns=duration_ns,
        method=method,
        route=route,
        endpoint=endpoint,
        status_code=status_code,
        instance=instance,
        error=error,
        trace_id=trace_id,
        span_id=span_id,
        trace_flags=trace_flags,
        trace_remote=trace_remote,
        variables={"user_id": 42} if variables is None else variables,
        sample_rate=sample_rate,
    )
