"""The files of the page about deployment run: each server, and the worker beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from benchmarks.web_servers import PATIENCE, UnixHTTPConnection, happens, serving

from documents import Page
from flask_chest import Query
from flask_chest.stores.sqlite import SQLiteStore

PAGE = Page(Path(__file__).parents[2] / "docs" / "deployment.md")
BIN = Path(sys.executable).parent


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, str]:
    """Write the page's files into the folder, with its own paths in place of the system's."""
    found: dict[str, str] = {}
    for language in ("python", "ini"):
        for block in PAGE.blocks(language, "file: "):
            name = block.mark.removeprefix("file: ")
            code = block.code.replace("/srv/shop/venv/bin", str(BIN)).replace("/var/lib/shop", str(tmp_path))
            (tmp_path / name).write_text(code)
            found[name] = code
    return found


def unit(text: str) -> tuple[list[str], dict[str, str]]:
    """Return the command of a systemd unit, and what it sets in the environment."""
    settings = [line.partition("=") for line in text.splitlines()]
    (command,) = [value for name, _, value in settings if name == "ExecStart"]
    environ = [pair for name, _, value in settings if name == "Environment" for pair in value.split()]
    return command.split(), dict(pair.split("=", 1) for pair in environ)


def buy(address: Path, item: str) -> int:
    with closing(UnixHTTPConnection(address)) as connection:
        connection.request("GET", f"/buy/{item}")
        return connection.getresponse().status


@contextmanager
def working(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Run the worker while the block lasts."""
    with subprocess.Popen(command, cwd=folder, env=os.environ | environ) as worker:
        try:
            yield
        finally:
            worker.kill()


def items(database: Path) -> set[object]:
    if not database.exists():
        return set()
    with closing(SQLiteStore(database)) as store:
        store.open()
        return {record.variables["item"] for record in store.query(Query(limit=None))}


def test_units_serve_and_store_by_the_worker(files: Mapping[str, str], tmp_path: Path) -> None:
    serve, environ = unit(files["shop.service"])
    work, workers_environ = unit(files["shop-chest.service"])
    assert environ["FLASK_CHEST_JOURNAL_DIR"] == workers_environ["FLASK_CHEST_JOURNAL_DIR"]
    address = tmp_path / "socket"
    serve[-1] = f"unix:{address}"
    with serving(serve, address=address, environ=environ):
        assert [buy(address, f"before-{number}") for number in range(5)] == [200] * 5
        assert not (tmp_path / "chest.db").exists()
        with working(work, tmp_path, workers_environ):
            expected = {f"before-{number}" for number in range(5)}
            assert happens(lambda: items(tmp_path / "chest.db") == expected, seconds=PATIENCE)


@pytest.mark.parametrize("program", ["shop", "shop-chest"])
def test_supervisord_runs_what_the_units_run(files: Mapping[str, str], program: str) -> None:
    config = ConfigParser(interpolation=None)
    config.read_string(files["supervisord.conf"])
    settings = config["supervisord"]["environment"] + config[f"program:{program}"].get("environment", "")
    environ = dict(re.findall(r'(\w+)="([^"]*)"', settings))
    command, units_environ = unit(files[f"{program}.service"])
    assert config[f"program:{program}"]["command"].split() == command
    assert environ.keys() <= {*units_environ, "FLASK_APP"}
    assert units_environ.items() <= environ.items()


def test_uwsgi_file_serves_and_stores(files: Mapping[str, str], tmp_path: Path) -> None:
    address = tmp_path / "socket"
    command = [str(BIN / "uwsgi"), "--http-socket", str(address), "uwsgi.ini"]
    environ = {"FLASK_CHEST_URI": f"sqlite:///{tmp_path}/chest.db"}
    with serving(command, address=address, environ=environ):
        assert [buy(address, f"{number}") for number in range(5)] == [200] * 5
        assert happens(
            lambda: items(tmp_path / "chest.db") == {f"{number}" for number in range(5)}, seconds=PATIENCE
        )
