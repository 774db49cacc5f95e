"""The page about ClickHouse: its programs with an engine behind them, and the statements that it shows."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

from clickhouse_server import Server
from documents import Page
from flask_chest.record import Query
from flask_chest.stores.clickhouse import ClickHouseStore

PAGE = Page(Path(__file__).parents[2] / "docs" / "clickhouse.md")
ITEMS = ("hat", "coat", "scarf", "hat")
URI = "clickhouse://shop:s3cret@localhost:8123/chest"


def run(mark: str, then: str, server: Server, folder: Path) -> None:
    (block,) = PAGE.blocks("python", mark)
    assert URI in block.code
    (folder / "program.py").write_text(block.code.replace(URI, server.uri) + then)
    subprocess.run([sys.executable, "-W", "error", "program.py"], cwd=folder, check=True, timeout=120)


def shown(rows: list[tuple[object, ...]]) -> str:
    return "".join(" | ".join(map(str, row)) + "\n" for row in rows)


def test_chest_keeps_what_the_statements_show(server: Server, tmp_path: Path) -> None:
    buying = "".join(f"app.test_client().get('/buy/{item}')\n" for item in ITEMS)
    run("chest", buying + "assert chest.flush(60)\nassert len(chest.query()) == 4\n", server, tmp_path)
    with closing(ClickHouseStore(server.uri)) as store:
        statements = [block.code.rstrip().rstrip(";") for block in PAGE.blocks("sql", "query")]
        answers = [
            shown(store._database.rows(each.replace("FROM flask_chest", "FROM chest.flask_chest")))
            for each in statements
        ]
    assert answers[:2] == [block.code for block in PAGE.blocks("text", "answer")]
    assert answers[2].startswith("/buy/<item> | 4 | ")


def test_exporter_delivers_and_store_is_made(server: Server, tmp_path: Path) -> None:
    buying = (
        "if __name__ == '__main__':\n    app.test_client().get('/buy/hat')\n    assert chest.flush(60)\n"
        "    assert len(chest.query()) == 1\n"
    )
    with closing(ClickHouseStore(server.uri)) as store:
        store.open()
        before = len(list(store.query(Query(limit=None))))
        run("exporter", buying, server, tmp_path)
        command = [sys.executable, "-m", "flask", "--app", "program", "chest", "export"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
        assert len(list(store.query(Query(limit=None)))) == before + 1
    run("store", "chest._state.here.store.open()\n", server, tmp_path)
    with closing(ClickHouseStore(server.uri, name="audit")) as audit:
        assert list(audit.query(Query())) == []
