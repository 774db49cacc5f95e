"""What ClickHouseStore is told wrongly, and says so without a server."""

from __future__ import annotations

import socket
import ssl
import time
import traceback
from contextlib import closing
from pathlib import Path

import pytest

from causes import chain
from flask_chest import FlaskChestClickHouse, FlaskChestSQLite
from flask_chest.declared import Declaration, Variables
from flask_chest.errors import ConfigurationError, StoreUnavailable
from flask_chest.exporter import FlaskChestExporterClickHouse
from flask_chest.stores.clickhouse import ClickHouseStore
from http_receiver import Answer, Receiver, Request, saying, self_signed

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


@pytest.mark.parametrize(
    "engine",
    [
        "Memory",
        "Log",
        "mergetree",
        "SummingMergeTree",
        "ReplicatedAggregatingMergeTree",
        "ReplacingMergeTree(version)",
        "MergeTree() --",
        "SharedMergeTree('/{table}', '{replica}')",
        "ReplicatedMergeTree('/{table}')",
        "ReplicatedMergeTree('/{table}', '{replica}', 'x')",
        "ReplicatedMergeTree('/{table}', '\\'')",
    ],
)
def test_engine_that_keeps_a_record_twice_is_refused(engine: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ClickHouseStore("clickhouse://h/db", engine=engine)
    assert str(refused.value) == (
        "engine must be MergeTree, ReplicatedMergeTree or SharedMergeTree, of which the tables take the kind "
        "Replacing, so that a record that comes twice is kept once; the second may have ('path', 'replica'), "
        f"got {engine!r}"
    )


def test_path_that_three_tables_would_share_is_refused() -> None:
    engine = "ReplicatedMergeTree('/clickhouse/{shard}/chest', '{replica}')"
    with pytest.raises(ConfigurationError) as refused:
        ClickHouseStore("clickhouse://h/db", engine=engine)
    assert str(refused.value) == (
        f"engine must have {{table}} or {{uuid}} in its path, as a chest has three tables, got {engine!r}"
    )


_PATH = "'/clickhouse/tables/{shard}/{table}', '{replica}'"


@pytest.mark.parametrize(
    ("engine", "records", "notes"),
    [
        (None, "ReplacingMergeTree(version)", "AggregatingMergeTree"),
        ("ReplacingMergeTree", "ReplacingMergeTree(version)", "AggregatingMergeTree"),
        ("SharedMergeTree", "SharedReplacingMergeTree(version)", "SharedAggregatingMergeTree"),
        ("ReplicatedMergeTree", "ReplicatedReplacingMergeTree(version)", "ReplicatedAggregatingMergeTree"),
        (
            f"ReplicatedReplacingMergeTree({_PATH})",
            f"ReplicatedReplacingMergeTree({_PATH}, version)",
            f"ReplicatedAggregatingMergeTree({_PATH})",
        ),
    ],
)
def test_tables_are_of_the_engine(engine: str | None, records: str, notes: str) -> None:
    statements = ClickHouseStore("clickhouse://h/db", engine=engine)._schema.statements()
    engines = [line for each in statements for line in each.splitlines() if line.startswith("ENGINE")]
    assert engines == [f"ENGINE = {notes}", f"ENGINE = {notes}", f"ENGINE = {records}"]


def test_engine_and_cluster_may_stand_in_the_uri() -> None:
    by_uri = ClickHouseStore("clickhouse://h/db?engine=ReplicatedMergeTree&cluster=main")
    by_option = ClickHouseStore("clickhouse://h/db", engine="ReplicatedMergeTree", cluster="main")
    assert by_uri._schema.statements() == by_option._schema.statements()
    assert by_uri.place == "clickhouse:h:8123/db#flask_chest"


class Visit(Variables):
    user_id: int


def test_every_statement_that_makes_or_changes_a_table_is_for_the_cluster() -> None:
    store = ClickHouseStore("clickhouse://h/db", cluster="main")
    names = ("flask_chest_deletions", "flask_chest_forgotten", "flask_chest")
    beginnings = [each.strip().splitlines()[0] for each in store._schema.statements()]
    assert beginnings == [f"CREATE TABLE IF NOT EXISTS `db`.`{name}` ON CLUSTER `main` (" for name in names]
    assert all(
        each.startswith("ALTER TABLE `db`.`flask_chest` ON CLUSTER `main` ")
        for each in store._index_statements("plan")
    )
    add, fill, view = store.view_sql(Declaration(Visit)).splitlines()
    assert add.startswith(
        "ALTER TABLE `db`.`flask_chest` ON CLUSTER `main` ADD COLUMN IF NOT EXISTS `int_user_id` "
    )
    assert fill == "ALTER TABLE `db`.`flask_chest` ON CLUSTER `main` MATERIALIZE COLUMN `int_user_id`;"
    assert view.startswith("CREATE OR REPLACE VIEW `db`.`flask_chest_visit` ON CLUSTER `main` AS SELECT ")


def test_exporter_and_chest_take_engine_and_cluster() -> None:
    FlaskChestClickHouse(db_uri="clickhouse://h/db", engine="ReplicatedMergeTree", cluster="main")
    chest = FlaskChestSQLite()
    FlaskChestExporterClickHouse(chest, "clickhouse://h/db", engine="SharedMergeTree", cluster="main")
    with pytest.raises(ConfigurationError, match=r"engine must be MergeTree, .* got 'Memory'"):
        FlaskChestClickHouse(db_uri="clickhouse://h/db", engine="Memory")
    with pytest.raises(ConfigurationError, match=r"engine must be MergeTree, .* got 'Memory'"):
        FlaskChestExporterClickHouse(chest, "clickhouse://h/db", engine="Memory", name="other")


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


REFUSED = Answer(
    status=500,
    body=b"Code: 516. DB::Exception: u: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)",
    headers={"X-ClickHouse-Exception-Code": "516"},
)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"))


def opening(receiver: Receiver[Request], *, host: str = "127.0.0.1", **options: object) -> StoreUnavailable:
    """Give the error with which a store ends that is opened at *receiver*."""
    uri = f"clickhouses://u:hunter2@{host}:{receiver.port}/db"
    with pytest.raises(StoreUnavailable) as away, closing(ClickHouseStore(uri, options=options)) as store:
        store.open()
    assert "hunter2" not in "".join(traceback.format_exception(away.value))
    return away.value


@pytest.mark.slow
def test_certificate_is_verified(tls: tuple[ssl.SSLContext, Path]) -> None:
    server, certificate = tls
    with Receiver(Request, tls=server) as receiver:
        receiver.respond = lambda _: REFUSED
        assert str(opening(receiver)) == (
            f"TLS with ClickHouse 127.0.0.1:{receiver.port}/db failed: self-signed certificate; "
            "pass the certificate of its authority as ca_cert, or correct the host in db_uri"
        )
        named = str(opening(receiver, host="localhost", ca_cert=str(certificate)))
        assert "Hostname mismatch, certificate is not valid for 'localhost'" in named
        assert receiver.requests == []


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # which is what verify=false asks for
@pytest.mark.parametrize("given", ["ca_cert", "verify", "server_host_name"])
def test_server_is_asked_by_tls_once_it_is_trusted(tls: tuple[ssl.SSLContext, Path], given: str) -> None:
    server, certificate = tls
    with Receiver(Request, tls=server) as receiver:
        receiver.respond = lambda _: REFUSED
        host = "127.0.0.1"
        options: dict[str, object] = {"ca_cert": str(certificate)}
        if given == "verify":
            options = {"verify": "false"}
        elif given == "server_host_name":
            host, options = "localhost", {**options, "server_host_name": "127.0.0.1"}
        refused = opening(receiver, host=host, **options)
        assert str(refused) == (
            f"ClickHouse {host}:{receiver.port}/db: AUTHENTICATION_FAILED (516); correct the user or the password"
        )
        assert len(receiver.requests) == 1


@pytest.mark.slow
def test_server_that_does_not_answer_in_time_is_away() -> None:
    with saying(b"") as url:
        store = ClickHouseStore(url.replace("http://", "clickhouse://u:hunter2@"), timeout=1)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="does not answer; see whether it runs") as away:
            store.open()
        assert time.monotonic() - began < 20
    assert "hunter2" not in "".join(traceback.format_exception(away.value))
