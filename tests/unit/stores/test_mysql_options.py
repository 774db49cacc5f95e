"""What MySQLStore is told wrongly, and says so without a server."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import pytest

from flask_chest.errors import (
    ConfigurationError,
)
from flask_chest.stores.mysql import MySQLStore


@pytest.mark.parametrize(
    "name", ["", "1a", "a b", "a`b", "a;b", "x`; DROP TABLE flask_chest; --", "a'b", "a%s", "{records}", "x" * 54]
)
def test_name_that_would_mean_something_in_sql_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MySQLStore("mysql://u:hunter2@host/db", name=name)
    assert str(refused.value) == (
        "name must be at most 53 ASCII letters, digits, _ or -, begin with a letter or _, "
        f"and not begin with sqlite_, got {name!r}"
    )


@pytest.mark.parametrize("option", ["connect_timeout", "statement_timeout", "lock_timeout"])
@pytest.mark.parametrize("seconds", [0, -1.0, 3601.0, float("nan"), float("inf")])
def test_times_must_be_times(option: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MySQLStore("mysql://host/db", **{option: seconds})  # type: ignore[arg-type]  # one of several
    assert str(refused.value) == f"{option} must be more than 0 and at most 3600 seconds, got {seconds!r}"


@pytest.mark.parametrize("size", [0, -1])
def test_pool_must_hold_a_connection(size: int) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MySQLStore("mysql://host/db", pool_size=size)
    assert str(refused.value) == f"pool_size must be at least 1, got {size}"


@pytest.mark.parametrize(
    ("parameters", "reads"),
    [({}, False), ({"ssl_verify_cert": True}, True), ({"ssl_verify_identity": True}, True)],
    ids=["no options", "a certificate", "a name"],
)
def test_certificates_are_read_where_one_is_verified(
    monkeypatch: pytest.MonkeyPatch, parameters: Mapping[str, object], reads: bool
) -> None:
    read: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *given: read.append(given))
    MySQLStore("mysql://host/db", **parameters)  # type: ignore[arg-type]  # of several types
    assert bool(read) == reads
