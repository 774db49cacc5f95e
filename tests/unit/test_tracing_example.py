"""The example with OpenTelemetry prints one request's span, log line and record with the same id."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_span_log_line_response_and_record_carry_the_same_id() -> None:
    command = [sys.executable, "-m", "examples.tracing"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    span = json.loads(output[output.index("{\n") : output.index("\n}") + 2])
    trace_id, span_id = (span["context"][name].removeprefix("0x") for name in ("trace_id", "span_id"))
    assert span["attributes"]["flask.g.item"] == "hat"
    assert f"INFO request_id={trace_id} somebody bought a hat" in output
    assert f"response X-Request-ID: {trace_id}\n" in output
    assert f"record request_id={trace_id} trace_id={trace_id} span_id={span_id}\n" in output
    assert re.search(r"record route=/buy/<item> variables=\{'item': 'hat', 'plan': 'pro'\}", output)
