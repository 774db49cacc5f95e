import subprocess
import sys
from pathlib import Path

import pytest

from flask_chest.errors import ConfigurationError
from flask_chest.stores import store_from_uri
from flask_chest.stores.memory import MemoryStore

SCHEMES = (
    "clickhouse:, clickhouses:, mariadb:, memory:, mongodb:, mongodb+srv:, mysql:, mysql+pymysql:, postgres:, "
    "postgresql:, sqlite:"
)


@pytest.mark.parametrize("uri", ["memory:", "memory://"])
def test_memory_uri_makes_a_store_each_time(uri: str, tmp_path: Path) -> None:
    factory = store_from_uri(uri, root=tmp_path)
    first, second = factory(), factory()
    assert isinstance(first, MemoryStore)
    assert first is not second


def test_relative_sqlite_path_begins_at_the_root(tmp_path: Path) -> None:
    store = store_from_uri("sqlite:///data/app.db", root=tmp_path)()
    store.open()
    assert (tmp_path / "data" / "app.db").exists()
    store.close()


def test_absolute_sqlite_path_does_not(tmp_path: Path) -> None:
    store = store_from_uri(f"sqlite:///{tmp_path}/app.db", root=Path("/elsewhere"))()
    assert repr(store) == f"<SQLiteStore '{tmp_path}/app.db' name='flask_chest'>"


def test_path_is_taken_as_it_is_written(tmp_path: Path) -> None:
    store = store_from_uri("sqlite:///a b%20#é.db", root=tmp_path)()
    store.open()
    assert [path.name for path in tmp_path.glob("*.db")] == ["a b%20#é.db"]
    store.close()


def test_name_becomes_the_prefix_of_the_tables(tmp_path: Path) -> None:
    store = store_from_uri("sqlite:///app.db", root=tmp_path, name="my-table")()
    assert repr(store).endswith("name='my-table'>")


def test_choosing_a_store_creates_nothing(tmp_path: Path) -> None:
    store_from_uri("sqlite:///data/app.db", root=tmp_path)()
    assert list(tmp_path.iterdir()) == []


def test_unknown_scheme_is_named_without_the_rest(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        store_from_uri("oracle://scott:tiger@db/app", root=tmp_path)
    assert str(refused.value) == (
        f"uri has the scheme 'oracle', which is not known; it must begin with one of {SCHEMES}"
    )


@pytest.mark.parametrize("uri", ["", "app.db", ":memory:", "/srv/app.db", "s3cret@host", "S3CRET:x"])
def test_address_without_a_scheme_is_not_repeated(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        store_from_uri(uri, root=tmp_path)
    assert str(refused.value) == (
        f"uri has no scheme; it must begin with one of {SCHEMES}, as in sqlite:///chest.db"
    )


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:", "needs a path after three slashes"),
        ("sqlite:app.db", "needs a path after three slashes"),
        ("sqlite://host/app.db", "needs a path after three slashes"),
        ("sqlite:///", "needs a path after three slashes"),
        ("sqlite:///app.db?mode=memory", "takes no options"),
        ("sqlite:///:memory:", "MemoryStore keeps records in memory"),
        ("memory:app", "takes nothing after the colon"),
    ],
)
def test_wrong_address_is_told_at_once(uri: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        store_from_uri(uri, root=tmp_path)


def test_wrong_name_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name must be"):
        store_from_uri("sqlite:///app.db", root=tmp_path, name="a b")


def test_store_is_loaded_when_it_is_chosen() -> None:
    code = "import sys, flask_chest.stores; sys.exit('flask_chest.stores.memory' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
