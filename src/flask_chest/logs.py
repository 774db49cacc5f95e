"""Log lines with the id of their request: `RequestIdFilter` for logging, `add_request_id` for structlog."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextvars import ContextVar

from flask_chest.errors import printable
from flask_chest.extension.chest import current_request_id

NO_REQUEST = "-"

_asking: ContextVar[bool] = ContextVar("flask_chest_asking", default=False)


class RequestIdFilter(logging.Filter):
    """Adds ``request_id`` to every log record: the id of the current request, or ``-`` outside of one.

    Add it to handlers, since a filter on a logger does not see the records of its children::

        handler.addFilter(RequestIdFilter())
        handler.setFormatter(logging.Formatter("%(request_id)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, with ``request_id`` set on *record* unless it has one."""
        if not hasattr(record, "request_id"):
            record.request_id = _request_id()
        return True


def add_request_id(
    _logger: object, _method_name: str, event_dict: MutableMapping[str, object], /
) -> MutableMapping[str, object]:
    """Return *event_dict* with ``request_id``, unless it has one: a processor for structlog.

    ::

        structlog.configure(processors=[add_request_id, structlog.processors.JSONRenderer()])
    """
    if "request_id" not in event_dict:
        event_dict["request_id"] = _request_id()
    return event_dict


def _request_id() -> str:
    if _asking.get():  # the function that makes the id logs something
        return NO_REQUEST
    token = _asking.set(True)
    try:
        return printable(current_request_id() or NO_REQUEST)  # a generator of the app's may take it from a header
    except Exception:  # noqa: BLE001 - a log line must come out, whatever the app's own code does
        return NO_REQUEST
    finally:
        _asking.reset(token)
