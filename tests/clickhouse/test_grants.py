"""A user who may do what the page lists, and one who lacks some of it; the engine reads grants from a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import pytest

from clickhouse_server import Server
from documents import Page
from flask_chest.aggregates import AggregateQuery, Count, Variable
from flask_chest.declared import Declaration, Indexed, Variables
from flask_chest.errors import StoreUnavailable
from flask_chest.record import Query
from flask_chest.stores.clickhouse import ClickHouseStore
from flask_chest.testing import make_record

PAGE = Page(Path(__file__).parents[2] / "docs" / "clickhouse.md")
CONFIG = """
<clickhouse>
  <logger><level>none</level></logger>
  <user_directories><users_xml><path>{users}</path></users_xml></user_directories>
  <access_control_improvements>
    <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
    <on_cluster_queries_require_cluster_grant>true</on_cluster_queries_require_cluster_grant>
  </access_control_improvements>
</clickhouse>
"""
USERS = """
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password></password>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>{grants}</grants>
    </default>
  </users>
</clickhouse>
"""


class Visit(Variables):
    user_id: Annotated[int, Indexed()]


def listed() -> Sequence[str]:
    """Give the statements of the page, for the one user whom the engine has."""
    (block,) = PAGE.blocks("sql", "grants")
    return [each.removesuffix(" TO shop") for each in re.findall(r"^(GRANT .*);$", block.code, re.MULTILINE)]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Sequence[str]], ClickHouseStore]]:
    """Start a server, with another one's database, whose user has some grants."""
    server = Server(tmp_path / "engine")
    server.kill()
    config, users = tmp_path / "config.xml", tmp_path / "users.xml"
    config.write_text(CONFIG.format(users=users))

    def start(grants: Sequence[str]) -> ClickHouseStore:
        server.kill()
        users.write_text(USERS.format(grants="".join(f"<query>{each}</query>" for each in grants)))
        server.start(config=config)
        return ClickHouseStore(server.uri)

    yield start
    server.kill()


def use(store: ClickHouseStore) -> None:
    """Do all that a chest does."""
    store.open()
    records = [make_record(variables={"user_id": number}) for number in range(3)]
    store.write(records)
    store.write(records)
    assert store.add_index("user_id")
    assert store.index_progress("user_id") is None
    assert list(store.query(Query(where={"user_id": 2}))) == [records[2]]
    assert store.aggregate(AggregateQuery(measures=(Count(),), by=(Variable("user_id"),))).groups
    declaration = Declaration(Visit)
    store.make_view(declaration)
    store._database.run(f"DROP VIEW chest.{store.view_name(declaration)}")
    assert store.remove_index("user_id")
    assert store.forget(Query(where={"user_id": 2})) == 1
    assert store.prune(records[1].time_unix_nano, limit=10) == 1
    assert store.prune(records[1].time_unix_nano + 10 * 86_400 * 10**9, limit=10) == 1
    assert store.status().records == 0


def test_grants_of_the_page_are_enough(serve: Callable[[Sequence[str]], ClickHouseStore]) -> None:
    with closing(serve(listed())) as store:
        use(store)


def test_grant_that_lacks_is_named(serve: Callable[[Sequence[str]], ClickHouseStore]) -> None:
    reading = [each for each in listed() if "system" in each]
    with closing(serve([*reading, "GRANT SELECT ON chest.*"])) as store:
        with pytest.raises(StoreUnavailable) as refused:
            store.open()
        assert str(refused.value).endswith(
            "/chest: ACCESS_DENIED (497); grant its user CREATE TABLE ON chest.flask_chest_deletions; "
            "docs/clickhouse.md lists all that it needs"
        )
    with closing(serve(listed())) as store:
        store.open()
    with closing(serve([*reading, "GRANT SELECT ON chest.*"])) as store:
        with pytest.raises(StoreUnavailable, match=r"grant its user INSERT ON chest\.flask_chest;") as refused:
            store.write([make_record(variables={"user_id": "s3cret"})])
        assert "s3cret" not in str(refused.value)
    with closing(serve([*reading, "GRANT SELECT, INSERT ON chest.*"])) as store:
        store.write([make_record(variables={"user_id": 7})])
        with pytest.raises(StoreUnavailable, match=r"grant its user ALTER DELETE ON chest\.flask_chest;"):
            store.forget(Query(where={"user_id": 7}))
        with pytest.raises(StoreUnavailable, match=r"grant its user ALTER ADD COLUMN ON chest\.flask_chest;"):
            store.add_index("user_id")
