"""What ClickHouseStore is told wrongly, and says so without a server."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from causes import chain
from flask_chest.errors import ConfigurationError, StoreUnavailable
from flask_chest.stores.clickhouse import ClickHouseStore

COMPLAINT = (
    "db_uri must be like clickhouse://user:password@host:8123/database, or clickhouses:// for TLS; got something "
    "else (in user and password : / ? # % and @ are written as %3A %2F %3F %23 %25 and %40)"
)


@pytest.mark.parametrize(
    "uri",
    [
        "x y",
        "",
        "postgresql://u:hunter2@h/db",
        "clickhouse://u:hunter2@[h/db",
        "clickhouse://u:hunter2@h:port/db",
        "clickhouse://u:hunter2@h:65536/db",
        "clickhouse://u:hunter/2@h/db",
        "clickhouse://u:12/hunter2@h/db",
        "clickhouse://u:hunter?2@h/db",
        "clickhouse://u:12?hunter=2@h/db",
        "clickhouse://u:12#hunter2@h/db",
        "clickhouse://u:hunter2@h/db/table",
    ],
)
def test_uri_that_is_none_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ClickHouseStore(uri)
    assert str(refused.value) == COMPLAINT
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("clickhouse://u:hunter2@h/db", "h:8123/db"),
        ("clickhouses://u:hunter2@h/db", "h:8443/db"),
        ("clickhouse://u:hunter2@h:9000/db?compress=false", "h:9000/db"),
        ("clickhouse://[::1]/db", "[::1]:8123/db"),
        ("clickhouse://", "localhost:8123/default"),
    ],
)
def test_address_is_shown_without_the_login(uri: str, shown: str) -> None:
    store = ClickHouseStore(uri)
    assert store.place == store.address == f"clickhouse:{shown}#flask_chest"
    assert repr(store) == f"<ClickHouseStore {shown} name='flask_chest'>"


def test_unknown_option_of_the_uri_is_named_without_its_value() -> None:
    with pytest.raises(ConfigurationError) as refused:
        ClickHouseStore("clickhouse://h/db?nonsense=hunter2")
    assert str(refused.value) == (
        "db_uri has the option 'nonsense', which is not known; it may have ca_cert, client_cert, "
        "client_cert_key, cluster, compress, engine, server_host_name, verify"
    )


def test_unknown_option_of_the_client_is_named_without_its_value() -> None:
    with pytest.raises(ConfigurationError) as refused:
        ClickHouseStore("clickhouse://h/db", options={"nonsense": "hunter2"})
    assert str(refused.value) == "clickhouse-connect has no option 'nonsense'; correct client_options"


@pytest.mark.parametrize("engine", ["Memory", "ReplacingMergeTree", "MergeTree() --"])
def test_engine_is_a_family_that_is_known(engine: str) -> None:
    with pytest.raises(ConfigurationError, match="engine must be one of MergeTree, ReplicatedMergeTree, Shared"):
        ClickHouseStore("clickhouse://h/db", engine=engine)


@pytest.mark.parametrize("named", ["a b", "a/b", "a`b", "a\\b", "a\0b", "x" * 64])
@pytest.mark.parametrize("option", ["database", "cluster"])
def test_name_that_cannot_be_one_is_refused(option: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be at most 63 characters"):
        ClickHouseStore("clickhouse://h", **{option: named})  # type: ignore[arg-type]  # one of several


@pytest.mark.parametrize("name", ["", "1a", "a b", "a.b", "a`b", "a\0", "'; DROP TABLE x; --", "x" * 61])
def test_name_that_would_mean_something_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name must be at most 60 ASCII letters"):
        ClickHouseStore("clickhouse://h/db", name=name)


@pytest.mark.parametrize("option", ["connect_timeout", "timeout"])
@pytest.mark.parametrize("seconds", [0, -1.0, 3601.0, float("nan"), float("inf")])
def test_times_must_be_times(option: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ClickHouseStore("clickhouse://host/db", **{option: seconds})  # type: ignore[arg-type]  # one of several
    assert str(refused.value) == f"{option} must be more than 0 and at most 3600 seconds, got {seconds!r}"


def test_server_that_is_away_is_told_without_the_password() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    store = ClickHouseStore(f"clickhouse://u:hunter2@127.0.0.1:{port}/db")
    with pytest.raises(StoreUnavailable) as away:
        store.open()
    assert str(away.value) == (
        f"ClickHouse 127.0.0.1:{port}/db does not answer; see whether it runs, and whether its address is right"
    )
    assert "hunter2" not in repr(chain(away.value))


@pytest.mark.parametrize("option", ["ca_cert", "client_cert", "client_cert_key"])
def test_certificate_that_is_not_there_is_told_at_once(option: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ClickHouseStore(f"clickhouses://u:hunter2@h/db?{option}=/nowhere/ca.pem")
    assert str(refused.value) == f"{option} must be a file that is there, got '/nowhere/ca.pem'"
