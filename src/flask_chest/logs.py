"""Log records that carry the id of their request."""

from __future__ import annotations

import logging
from contextvars import ContextVar

from flask_chest.errors import printable
from flask_chest.extension.chest import current_request_id

NO_REQUEST = "-"

_asking: ContextVar[bool] = ContextVar("flask_chest_asking", default=False)


class RequestIdFilter(logging.Filter):
    """Adds ``request_id`` to every log record that passes: the current request's, or ``-``.

    Put it on handlers, for a filter on a logger does not see its children's records::

        handler.addFilter(RequestIdFilter())
        handler.setFormatter(logging.Formatter("%(request_id)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let *record* pass, with its ``request_id``."""
        if not hasattr(record, "request_id"):
            record.request_id = _request_id()
        return True


def _request_id() -> str:
    if _asking.get():  # what makes the id logs something
        return NO_REQUEST
    token = _asking.set(True)
    try:
        return printable(current_request_id() or NO_REQUEST)  # an own generator may take it from a header
    except Exception:  # noqa: BLE001 - a log line must come out, whatever the app's own code does
        return NO_REQUEST
    finally:
        _asking.reset(token)
