"""The pages about databases, run against the databases."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pymysql
import pytest
from pymongo import MongoClient

from documents import Page
from servers import DatabaseServer

ROOT = Path(__file__).parents[2]
Ask: TypeAlias = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def postgresql_admin(postgresql: DatabaseServer) -> Iterator[Ask]:
    """Asks as the one who may do everything, in a database of its own."""
    with closing(psycopg.connect(postgresql.uri, autocommit=True)) as connection:
        connection.execute(b"CREATE DATABASE docs")
    with closing(psycopg.connect(postgresql.uri_with(database="docs"), autocommit=True)) as connection:

        def ask(sql: str) -> list[tuple[Any, ...]]:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

        yield ask
        for (user,) in ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'shop%'"):
            ask(f"DROP OWNED BY {user} CASCADE")
            ask(f"DROP ROLE {user}")
    with closing(psycopg.connect(postgresql.uri, autocommit=True)) as connection:
        connection.execute(b"DROP DATABASE docs WITH (FORCE)")


@pytest.fixture
def mysql_admin(mysql_server: DatabaseServer) -> Iterator[Ask]:
    host, _, port = mysql_server.address.partition(":")
    connection = pymysql.connect(
        host=host, port=int(port), user="root", password=mysql_server.password, autocommit=True
    )
    with closing(connection), connection.cursor() as cursor:

        def ask(sql: str) -> list[tuple[Any, ...]]:
            for statement in filter(str.strip, sql.replace("chest.", "docs.").split(";")):
                cursor.execute(statement)
            return list(cursor.fetchall())

        ask("CREATE DATABASE docs; USE docs")
        yield ask
        ask("DROP DATABASE docs; DROP USER IF EXISTS shop; DROP USER IF EXISTS shop_web")


def the(page: Page, language: str, mark: str) -> str:
    (block,) = page.blocks(language, mark)
    return block.code


def run(program: str, server: DatabaseServer, folder: Path, *, user: str = "shop", options: str = "") -> str:
    """Run *program* as *user* on *server*, with the journal in *folder*."""
    at_home = f"{server.scheme.replace('mariadb', 'mysql')}://shop:s3cret@localhost/chest"
    there = server.uri_with(user=user, password="s3cret", database="docs").replace("=admin", "=docs")
    host, _, port = server.address.partition(":")
    program = program.replace(f'"{at_home}"', f'"{there.replace("mariadb:", "mysql:")}"{options}')
    program = program.replace('host="localhost"', f'host="{host}", port={port}').replace('="chest"', '="docs"')
    (folder / "program.py").write_text(program)
    command = [sys.executable, "-W", "error", "program.py"]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def buying(count: int) -> str:
    """Let the page's app sell four things, and find *count* in the chest then."""
    return f"""
client = app.test_client()
for item in ["hat", "coat", "hat", "scarf"]:
    assert client.get(f"/buy/{{item}}").text == "bought"
assert chest.flush(30)
assert len(chest.query()) == {count}, chest.query()
"""


def shown(rows: Sequence[tuple[Any, ...]]) -> str:
    return "".join(" | ".join(map(str, row)) + "\n" for row in rows)


def check_sql_page(page: Page, server: DatabaseServer, admin: Ask, folder: Path) -> None:
    admin(the(page, "sql", "creating"))
    run(the(page, "python", "chest") + buying(4), server, folder)
    answers = [shown(admin(query.code)) for query in page.blocks("sql", "query")]
    assert len(answers) == 3
    assert answers[:2] == [answer.code for answer in page.blocks("text", "answer")]
    assert answers[2].startswith("/buy/<item> | 4 | ")
    run(the(page, "python", "store") + "chest._state.here.store.open()\n", server, folder)
    index = "assert chest._state.here.store.add_index('plan')\n"
    run(the(page, "python", "chest") + index, server, folder)
    admin(the(page, "sql", "running"))
    program = the(page, "python", "chest") + buying(8)
    program += "assert len(chest.query(where={'plan': 'pro'})) == 4\n"
    program += "assert [index.variable for index in chest._state.here.store.indexes()] == ['plan']\n"
    run(program, server, folder, user="shop_web", options=", create=False")


def test_page_about_postgresql(postgresql: DatabaseServer, postgresql_admin: Ask, tmp_path: Path) -> None:
    check_sql_page(Page(ROOT / "docs/postgresql.md"), postgresql, postgresql_admin, tmp_path)


def test_page_about_mysql(mysql_server: DatabaseServer, mysql_admin: Ask, tmp_path: Path) -> None:
    check_sql_page(Page(ROOT / "docs/mysql.md"), mysql_server, mysql_admin, tmp_path)


def test_page_about_mongodb(mongodb: DatabaseServer, tmp_path: Path) -> None:
    page = Page(ROOT / "docs/mongodb.md")
    with MongoClient[Any](mongodb.uri) as client:
        client["docs"].command("createUser", "shop", pwd="s3cret", roles=["readWrite"])
        run(the(page, "python", "chest") + buying(4), mongodb, tmp_path)
        assert run(the(page, "python", "query"), mongodb, tmp_path) == the(page, "text", "answer")
        client["docs"].command("dropUser", "shop")
        client.drop_database("docs")


@pytest.mark.parametrize("kind", ["postgresql", "mysql", "mongodb"])
def test_block_of_the_readme(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: DatabaseServer = request.getfixturevalue(kind)
    program = the(Page(ROOT / "docs" / "databases.md"), "python", kind)
    (tmp_path / "program.py").write_text(
        program.replace(f"{kind}://user:password@localhost/chest", server.uri)
        + "app.test_client().get('/')\nassert chest.query()[0].variables == {'plan': 'pro'}\n"
    )
    subprocess.run([sys.executable, "-W", "error", "program.py"], cwd=tmp_path, check=True)
