"""Where a MySQL server is: what is read from a URI, and what is refused without repeating it."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given

from flask_chest.errors import ConfigurationError
from flask_chest.stores.mysql.connections import Address
from json_values import texts

COMPLAINT = (
    "db_uri must be like mysql://user:password@host:3306/database; got something else"
    " (in user and password / ? # and @ are written as %2F %3F %23 and %40)"
)
names = texts.filter(bool)


def refusal(uri: str, **given: object) -> str:
    with pytest.raises(ConfigurationError) as refused:
        Address(uri, given)
    assert refused.value.__cause__ is None
    return str(refused.value)


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "MySQL"])
def test_every_part_of_a_uri_is_read(scheme: str) -> None:
    address = Address(f"{scheme}://app:hunter2@db.example:3307/chest", {})
    assert address.parameters == {
        "host": "db.example",
        "port": 3307,
        "user": "app",
        "password": "hunter2",
        "database": "chest",
    }
    assert str(address) == "db.example:3307/chest"


def test_part_that_is_left_out_is_left_to_the_driver() -> None:
    assert Address("mysql://db/chest", {}).parameters == {"host": "db", "database": "chest"}
    assert str(Address("mysql:///chest", {})) == "localhost:3306/chest"


@pytest.mark.parametrize(
    ("host", "read"), [("[::1]", "::1"), ("[::1]:3307", "::1"), ("127.0.0.1", "127.0.0.1"), ("DB", "db")]
)
def test_host_may_be_an_address(host: str, read: str) -> None:
    assert Address(f"mysql://u:p@{host}/chest", {}).parameters["host"] == read


@given(user=names, password=names, database=names)
def test_encoded_user_password_and_database_come_back_equal(user: str, password: str, database: str) -> None:
    encoded = (quote(part, safe="") for part in (user, password, database))
    address = Address("mysql://{}:{}@host:3307/{}".format(*encoded), {})
    known = address.parameters
    assert (known["user"], known["password"], known["database"]) == (user, password, database)
    assert str(address) == f"host:3307/{database}"


def test_empty_password_is_one() -> None:
    assert Address("mysql://app:@db/chest", {}).parameters["password"] == ""
    assert "password" not in Address("mysql://app@db/chest", {}).parameters


def test_options_are_read_by_their_kind() -> None:
    options = "ssl_ca=/etc/my%20ca.pem&ssl_verify_cert=true&ssl_verify_identity=1&ssl_disabled=False"
    assert Address(f"mysql://db/chest?{options}", {}).parameters == {
        "host": "db",
        "database": "chest",
        "ssl_ca": "/etc/my ca.pem",
        "ssl_verify_cert": True,
        "ssl_verify_identity": True,
        "ssl_disabled": False,
    }


def test_socket_is_shown_in_place_of_the_host() -> None:
    address = Address("mysql://app:hunter2@/chest?unix_socket=/run/mysqld.sock", {})
    assert address.parameters["unix_socket"] == "/run/mysqld.sock"
    assert str(address) == "/run/mysqld.sock/chest"


def test_what_is_given_beside_goes_before_the_uri() -> None:
    address = Address("mysql://app:old@db/chest", {"password": "new", "database": "other", "charset": "utf8mb4"})
    assert address.parameters == {
        "host": "db",
        "user": "app",
        "password": "new",
        "database": "other",
        "charset": "utf8mb4",
    }
    assert str(Address("", {"host": "db", "port": 1, "db": "chest"})) == "db:1/chest"


@pytest.mark.parametrize("uri", ["", "mysql://db", "mysql://u:hunter2@db:3306/", "mysql://db?ssl_ca=x"])
def test_database_must_be_named(uri: str) -> None:
    assert refusal(uri) == ("db_uri names no database; it must be like mysql://user:password@host/database")


@pytest.mark.parametrize(
    "uri",
    [
        "x y",
        "db/chest",
        "//u:hunter2@db/chest",
        "postgresql://u:hunter2@db/chest",
        "mysqlx://u:hunter2@db/chest",
        "mysql://u:hunter2@db:port/chest",
        "mysql://u:hunter2@db:0/chest",
        "mysql://u:hunter2@db:65536/chest",
        "mysql://u:hunter2@db:-1/chest",
        "mysql://u:hunter2@[::1/chest",
        "mysql://u:hunter2@db/chest#part",
        "mysql://u:hunter2@\u2100/chest",
    ],
)
def test_uri_that_is_none_is_refused_without_repeating_it(uri: str) -> None:
    assert refusal(uri) == COMPLAINT


@pytest.mark.parametrize("mark", ["/", "?", "#"])
@pytest.mark.parametrize("password", ["hunter{}2", "12{}hunter2", "12{}hunter2=x", "{}hunter2"])
def test_password_with_a_mark_in_it_is_taken_for_no_other_part(password: str, mark: str) -> None:
    assert refusal(f"mysql://u:{password.format(mark)}@db/chest") == COMPLAINT
    assert refusal(f"mysql://u:{password.format(mark)}@db/chest?ssl_ca=x") == COMPLAINT


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("nonsense=hunter2", "nonsense"),
        ("charset=hunter2", "charset"),
        ("local_infile=1", "local_infile"),
        ("ssl_disabled=hunter2", "ssl_disabled"),
        ("ssl_disabled", "ssl_disabled"),
        ("SSL_CA=hunter2", "SSL_CA"),
    ],
)
def test_unknown_option_is_named_without_its_value(option: str, name: str) -> None:
    assert refusal(f"mysql://db/chest?{option}") == (
        f"db_uri has the option {name!r}, which is not one of server_public_key, ssl_ca, ssl_cert, "
        "ssl_disabled, ssl_key, ssl_key_password, ssl_verify_cert, ssl_verify_identity, unix_socket "
        "or has no such value"
    )
