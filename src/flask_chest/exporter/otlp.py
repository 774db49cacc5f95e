"""Records as OpenTelemetry's log events, to any collector that speaks OTLP over HTTP.

The SDK's own exporter is not used: it takes a redirect and a partial success for a delivery, and retries by
itself. The format is the binary one of https://opentelemetry.io/docs/specs/otlp/.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import cast

from flask_chest.errors import MissingDriverError, RecordsRejected, TargetUnavailable
from flask_chest.exporter import _otlp_environment
from flask_chest.exporter._batches import rejection
from flask_chest.record import JSONValue, Record
from flask_chest.stores.options import CONNECT_TIMEOUT

try:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
        ExportLogsServiceRequest,
        ExportLogsServiceResponse,
    )
    from opentelemetry.proto.common.v1.common_pb2 import (
        AnyValue,
        ArrayValue,
        InstrumentationScope,
        KeyValue,
        KeyValueList,
    )
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
    from opentelemetry.sdk.resources import Resource

    from flask_chest.exporter._http import TOO_LARGE, Answer, Endpoint, EndpointExporter, Verify
except ImportError as exc:
    raise MissingDriverError("opentelemetry-proto, opentelemetry-sdk or urllib3", extra="otlp") from exc

EVENT_NAME = "flask_chest.request"

_REJECTING = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, TOO_LARGE}


class OTLPExporter(EndpointExporter):
    """Sends each record as one log event with the ids of its trace.

    A batch whose answer is lost is sent again: ``log.record.uid`` tells its records apart. *endpoint* is the
    whole address. *client_certificate* and *client_key* are files in PEM, for a collector that wants to know its
    clients. An option that is ``None`` is read from OpenTelemetry's variable, as OTEL_EXPORTER_OTLP_LOGS_HEADERS
    or else OTEL_EXPORTER_OTLP_HEADERS for *headers* and ``…_CERTIFICATE`` for *verify*. *resource* adds
    attributes of the app to those of OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME. Variables are attributes of
    the event, with *prefix* before their names. A batch counts as delivered only when the collector took all of
    it: not after a redirect, nor when it took a part. Times are in seconds; *verify* is as in `HTTPExporter`.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        headers: Mapping[str, str] | None = None,
        resource: Mapping[str, str] | None = None,
        prefix: str = "flask.g.",
        timeout: float | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        verify: Verify | None = None,
        client_certificate: str | os.PathLike[str] | None = None,
        client_key: str | os.PathLike[str] | None = None,
        compress: bool | None = None,
        name: str = "otlp",
    ) -> None:
        certificate, variable = _otlp_environment.certificate()
        target = Endpoint(
            endpoint or _otlp_environment.endpoint(),
            setting="endpoint",
            example=_otlp_environment.DEFAULT_ENDPOINT,
            headers=_otlp_environment.headers() if headers is None else headers,
            content_type="application/x-protobuf",
            method="POST",
            timeout=_otlp_environment.timeout() if timeout is None else timeout,
            connect_timeout=connect_timeout,
            verify=verify or certificate or True,
            verify_setting="verify" if verify is not None else variable,
            identity=(client_certificate, client_key) if client_certificate else _otlp_environment.identity(),
            compress=_otlp_environment.compress() if compress is None else compress,
        )
        super().__init__(target, name=name)
        self._resource = Resource.create(dict(resource or {}))
        self._prefix = prefix

    def _deliver(self, records: Sequence[Record]) -> None:
        answer = self._endpoint.send(self._encoded(records), {})
        if answer.status == HTTPStatus.OK:
            self._require_full_success(answer, records)
        else:
            self._not_taken(answer, records, rejecting=_REJECTING)

    def _encoded(self, records: Sequence[Record]) -> bytes:
        events: list[LogRecord] = []
        wrong: dict[str, str] = {}
        for record in records:
            try:
                events.append(_event(record, self._prefix))
            except ValueError:  # protobuf's, for a lone surrogate and for a number beyond 64 bits
                wrong[record.id] = "it holds a text or a number that OTLP cannot carry"
        if wrong:
            raise RecordsRejected(f"{len(wrong)} of the records cannot be sent by OTLP", wrong)
        scope = ScopeLogs(scope=InstrumentationScope(name="flask_chest"), log_records=events)
        about = ResourceMessage(attributes=_pairs(cast("Mapping[str, JSONValue]", self._resource.attributes)))
        request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=about, scope_logs=[scope])])
        return request.SerializeToString()

    def _require_full_success(self, answer: Answer, records: Sequence[Record]) -> None:
        where = self._endpoint.where
        try:
            response = ExportLogsServiceResponse.FromString(answer.body)
        except DecodeError:
            raise TargetUnavailable(
                f"{where} answers 200, and not as a collector does; correct endpoint"
            ) from None
        if rejected := response.partial_success.rejected_log_records:
            # Its words are left out: they may quote a value.
            raise rejection(f"{where} rejected {rejected} of the records", records)


def _event(record: Record, prefix: str) -> LogRecord:
    error = record.error or _failure(record.status_code)
    about: dict[str, JSONValue] = {
        "log.record.uid": record.id,
        "flask_chest.request_id": record.request_id,
        "flask_chest.instance": record.instance,
        "flask_chest.duration_ns": record.duration_ns,
        "flask_chest.sample_rate": record.sample_rate,
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status_code,
        "error.type": error,
        "flask.endpoint": record.endpoint,
    }
    variables = {f"{prefix}{name}": value for name, value in record.variables.items()}
    event = LogRecord(
        time_unix_nano=record.time_unix_nano,
        observed_time_unix_nano=record.time_unix_nano + record.duration_ns,
        severity_number=SeverityNumber.SEVERITY_NUMBER_ERROR if error else SeverityNumber.SEVERITY_NUMBER_INFO,
        event_name=EVENT_NAME,
        attributes=_pairs({name: value for name, value in about.items() if value is not None} | variables),
    )
    if record.trace_id is not None:
        event.trace_id = bytes.fromhex(record.trace_id)
        event.flags = record.trace_flags or 0
        if record.span_id is not None and not record.trace_remote:  # else it would hang on the caller's span
            event.span_id = bytes.fromhex(record.span_id)
    return event


def _failure(status_code: int) -> str | None:
    """Return the name of a failure that the app handled, by the semantic conventions for HTTP."""
    return str(status_code) if status_code >= HTTPStatus.INTERNAL_SERVER_ERROR else None


def _pairs(values: Mapping[str, JSONValue]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any_value(value)) for name, value in values.items()]


def _any_value(value: JSONValue) -> AnyValue:
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_any_value(item) for item in value]))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=_pairs(value)))
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)
