"""Records as the bodies of HTTP requests."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from flask_chest.errors import ConfigurationError, ContractError, ExportError, RecordsRejected
from flask_chest.exporter._batches import rejection
from flask_chest.record import Record

Payload: TypeAlias = Callable[[Sequence[Record]], object]
"""Function of a batch that returns what JSON can hold, or the body itself as bytes or text."""


def require_payload(payload: object) -> None:
    """Raise `ConfigurationError` for what cannot make a body."""
    if payload is not None and (not callable(payload) or inspect.iscoroutinefunction(payload)):
        raise ConfigurationError(f"payload must be a function, and not an async one, got {payload!r}")


def encoded(records: Sequence[Record], payload: Payload | None) -> bytes:
    """Encode *records* as *payload* says, or as an object with the list ``records``.

    Raises `RecordsRejected` for those that cannot be encoded; it names them where it is known which they are.
    """
    return _encoded_object(records) if payload is None else _encoded_by(payload, records)


def _encoded_object(records: Sequence[Record]) -> bytes:
    objects: list[bytes] = []
    wrong: dict[str, str] = {}
    for record in records:
        fields = msgspec.structs.asdict(record) | {"variables": dict(record.variables)}
        try:
            objects.append(msgspec.json.encode(fields))
        except UnicodeEncodeError:
            wrong[record.id] = "it holds a lone surrogate, which UTF-8 cannot encode"
    if wrong:
        raise RecordsRejected(f"{len(wrong)} of the records cannot be sent as JSON", wrong)
    return b'{"records":[' + b",".join(objects) + b"]}"


def _encoded_by(payload: Payload, records: Sequence[Record]) -> bytes:
    try:
        made = payload(records)
        if made is not None:
            return _as_bytes(made)
    except ExportError:
        raise
    except Exception as exc:  # noqa: BLE001 - it is the application's function
        # Its text may quote a value, and a log prints the text of a cause.
        raise rejection(f"payload failed with {type(exc).__name__}", records) from None
    raise ContractError("payload returned None, must be what JSON can hold, bytes or str")


def _as_bytes(made: object) -> bytes:
    match made:
        case bytes() | bytearray() | memoryview():
            return bytes(made)
        case str():
            return made.encode()
        case _:
            return msgspec.json.encode(made)
