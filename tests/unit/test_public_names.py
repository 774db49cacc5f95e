"""The names and signatures that users import stay as they are, unless somebody changes them on purpose."""

from __future__ import annotations

import sys

import pytest

from public_names import HELD, public_names

pytest.importorskip("opentelemetry.trace", reason="flask_chest.otel is one of the modules")


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="Python 3.14 prints optional and forward annotations in another way"
)
@pytest.mark.parametrize("change", ["gone or changed", "new"])
def test_public_names_and_signatures_are_those_that_are_held(change: str) -> None:
    held, now = HELD.read_text().splitlines(), list(public_names())
    found = set(held) - set(now) if change != "new" else set(now) - set(held)
    assert not found, "write them down with: python -m tests.support.public_names, and tell users in CHANGELOG.md"
