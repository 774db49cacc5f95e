"""The chests by their database: `FlaskChest` with its store already chosen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from flask import Flask

from flask_chest.capture import TrackedVars
from flask_chest.errors import ConfigurationError
from flask_chest.extension import FlaskChest
from flask_chest.protocols import RequestIdGenerator, Store
from flask_chest.settings import SchedulerMode, Settings, WriterMode


class FlaskChestSQLite(FlaskChest):
    """A chest in an SQLite file.

    *db_uri* is a path; a relative one is taken from ``app.root_path``. *name* is the table's name and the
    prefix of those beside it. *busy_timeout* is how many seconds a write waits for another process's lock.
    The other options are those of `FlaskChest`.
    """

    def __init__(
        self,
        app: Flask | None = None,
        name: str = "flask_chest",
        db_uri: str | os.PathLike[str] = "db.sqlite3",
        *,
        busy_timeout: float = 5.0,
        tracked_vars: TrackedVars | None = None,
        request_id_generator: RequestIdGenerator | None = None,
        strict: bool | None = None,
        instance: str | None = None,
        scheduler: SchedulerMode | None = None,
        writer: WriterMode | None = None,
        journal_dir: str | os.PathLike[str] | None = None,
        journal_bytes: int | None = None,
        journal_sync: bool | None = None,
        config_prefix: str = "CHEST",
    ) -> None:
        self._path = os.fspath(db_uri)
        self._name = name
        self._busy_timeout = busy_timeout
        super().__init__(
            app,
            tracked_vars=tracked_vars,
            request_id_generator=request_id_generator,
            strict=strict,
            instance=instance,
            scheduler=scheduler,
            writer=writer,
            journal_dir=journal_dir,
            journal_bytes=journal_bytes,
            journal_sync=journal_sync,
            config_prefix=config_prefix,
        )

    def _store_factory(self, app: Flask, _settings: Settings, /) -> Callable[[], Store]:
        from flask_chest.stores.sqlite import SQLiteStore  # noqa: PLC0415 - a driver loads when it is chosen

        path = self._path.removeprefix("sqlite:///")
        if not path or path.startswith("sqlite:"):
            raise ConfigurationError(
                f"db_uri must be the path of a file, or sqlite:/// and the path, got {self._path!r}"
            )
        if not path.startswith((":", "file:")):
            path = str(Path(app.root_path) / path)
        store = SQLiteStore(path, name=self._name, busy_timeout=self._busy_timeout)
        return lambda: store
