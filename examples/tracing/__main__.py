"""Sends the app one request and shows what it leaves: ``python -m examples.tracing``."""

from __future__ import annotations

import os

os.environ.setdefault("OTEL_SERVICE_NAME", "shop")

from examples.tracing.app import app, chest


def main() -> None:
    response = app.test_client().get("/buy/hat")
    print("response X-Request-ID:", response.headers["X-Request-ID"])
    (record,) = chest.query()
    print(f"record request_id={record.request_id} trace_id={record.trace_id} span_id={record.span_id}")
    print(f"record route={record.route} variables={dict(record.variables)}")
    chest.close()


if __name__ == "__main__":
    main()
