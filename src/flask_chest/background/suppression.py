"""Keeps OpenTelemetry's instrumentations from tracing what the writer does for itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PLAIN_KEY = "suppress_instrumentation"
"""Key that instrumentations asked for before the API had its own; they still do."""


@contextmanager
def suppress_instrumentation() -> Iterator[None]:
    """Let nothing inside the ``with`` block become a span, if the app uses OpenTelemetry.

    It is not imported for that: an app that has not imported it has no instrumentation either.
    """
    context = sys.modules.get("opentelemetry.context")
    if context is None:
        yield
        return
    current = context.get_current()
    for key in (_PLAIN_KEY, getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", _PLAIN_KEY)):
        current = context.set_value(key, True, current)  # noqa: FBT003 - OpenTelemetry's own signature
    token = context.attach(current)
    try:
        yield
    finally:
        context.detach(token)
