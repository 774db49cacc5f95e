"""An app that keeps who visited, and where one installation of it has its files.

A visit's name is chosen by the client and is unique, so that it can be asked of each answered request whether
it is in the store, and how often.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.web_servers import PATIENCE, happens
from flask import Flask, g
from flask.testing import FlaskClient

from flask_chest import FlaskChestSQLite, Query, Record, SchemaError
from flask_chest.decorator import flask_chest
from flask_chest.stores.sqlite import SQLiteStore

APP = "benchmarks.visits:serve()"
FOLDER = "VISITS_FOLDER"
SUCCESSOR = "successor"


@dataclass(frozen=True, slots=True)
class Site:
    """One installation: what all processes that serve or have served the app share."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "visits.db"

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def address(self) -> Path:
        return self.folder / "http"

    @property
    def environ(self) -> Mapping[str, str]:
        return {FOLDER: str(self.folder)}

    def records(self) -> list[Record]:
        """Read what is stored; nothing where nobody has made a store yet, or somebody makes it just now."""
        if not self.database.exists():
            return []
        with closing(SQLiteStore(self.database)) as store:
            try:
                return list(store.query(Query(limit=None)))
            except SchemaError:
                return []

    def stored(self) -> Counter[str]:
        """Count the records of each visit."""
        return Counter(str(record.variables["visit"]) for record in self.records())

    @contextmanager
    def successor(self) -> Iterator[FlaskClient]:
        """Run the app once more, as the process that comes after another: it serves a first request."""
        app, chest = make_app(self)
        try:
            client = app.test_client()
            client.get(f"/visit/{SUCCESSOR}")
            yield client
        finally:
            chest.close()

    def settle(self, answered: AbstractSet[str], *, seconds: float = PATIENCE) -> Counter[str]:
        """Let a successor store what others left; count once all *answered* are there, or the time is up."""
        with self.successor():
            happens(lambda: answered <= self.stored().keys(), seconds=seconds)
        stored = self.stored()
        del stored[SUCCESSOR]
        return stored


def make_app(site: Site, *, busy_timeout: float = 5.0) -> tuple[Flask, FlaskChestSQLite]:
    app = Flask("visits")
    app.config["CHEST_JOURNAL_DIR"] = str(site.journal)
    chest = FlaskChestSQLite(app, db_uri=site.database, busy_timeout=busy_timeout)

    @app.route("/visit/<name>")
    @flask_chest(tracked_vars=["visit"])
    def visit(name: str) -> str:
        g.visit = name
        return f"{name} {os.getpid()}"

    return app, chest


def serve() -> Flask:
    """Make the app for a server whose environment names the folder."""
    app, _ = make_app(Site(Path(os.environ[FOLDER])))
    return app
