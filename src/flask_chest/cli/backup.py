"""``flask chest backup`` and ``restore``: a chest in an SQLite file, and its copies."""

from __future__ import annotations

from pathlib import Path

import click

from flask_chest.cli._files import written_whole
from flask_chest.cli._group import Failure, asking_store, chest_group, the_chest
from flask_chest.cli._options import chest_option
from flask_chest.cli._output import amount, say, say_progress
from flask_chest.errors import ConfigurationError, SchemaError
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.report import segments_of
from flask_chest.protocols import Backup

_LOGS = ("-wal", "-shm", "-journal")
"""Ends of the names of what SQLite lays beside a file."""


@chest_group.command("backup")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace FILE if it is there.")
@chest_option
def backup(*, path: Path, overwrite: bool, name: str | None) -> None:
    """Copy the SQLite file of the chest into FILE, while the app goes on writing.

    All that was stored when it began is in it, tables of others too. What waits in journals is not, and is
    counted. FILE is checked before it stands there.

    \b
    Example: flask --app shop chest backup /var/backups/chest-2026-11-29.sqlite3
    """  # noqa: D301 - \b is click's mark for lines to keep
    chest = the_chest(name)
    store = _store_of(chest)
    if path.exists() and not overwrite:
        raise Failure(f"{path} is there already; choose another name, or replace it by --overwrite")
    for log in (path.with_name(path.name + ending) for ending in _LOGS):
        if log.exists():
            raise Failure(f"{log} belongs to a database that is or was at {path}; choose another name")
    with asking_store(), written_whole(path) as partial_path:
        store.backup(partial_path, progress=lambda share: say_progress(f"{share:.0%} copied"))
    waiting = sum(segment.waiting_records for segment in segments_of(chest))
    say(f"{path} is a whole copy." + (f" {amount(waiting)} in journals, not in it." if waiting else ""))


@chest_group.command("restore")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Also in place of records, or of tables of others.")
@chest_option
def restore(*, path: Path, overwrite: bool, name: str | None) -> None:
    """Put FILE, which backup wrote, in place of all that the SQLite file of the chest holds.

    FILE is checked first, and then taken whole or not at all. What waits in journals is stored afterwards.

    \b
    Example: flask --app shop chest restore /var/backups/chest-2026-11-29.sqlite3
    """  # noqa: D301
    store = _store_of(the_chest(name))
    with asking_store():
        try:
            store.restore(path, overwrite=overwrite)
        except ConfigurationError as exc:
            raise Failure(f"{exc}; to replace all that by {path}, use --overwrite") from exc
        except SchemaError as exc:
            raise Failure(str(exc)) from exc
    say(f"{path} is restored.")


def _store_of(chest: FlaskChest) -> Backup:
    store = chest._state.here.store
    if not isinstance(store, Backup):
        raise Failure(f"{type(store).__name__} is backed up by its server's own tools; see docs/backup.md")
    return store
