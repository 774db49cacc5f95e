"""``flask chest prune``: what is old goes."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

import click

from flask_chest.cli._group import chest_group, give_up, the_chests
from flask_chest.cli._questions import span
from flask_chest.errors import StoreAbsent
from flask_chest.protocols import Retention

BATCH = 1_000
"""Records that are deleted at a time: no lock lasts longer than that takes."""


@chest_group.command("prune")
@click.option(
    "--older-than", type=span, required=True, help="How long ago a request began: 90s, 15m, 2h, 30d, 4w."
)
@click.option(
    "--keep-unexported/--unexported-too",
    default=True,
    show_default=True,
    help="Whether records stay that an exporter has not had yet.",
)
def prune(*, older_than: timedelta, keep_unexported: bool) -> None:
    """Delete the records of requests that began long ago, in small batches, while the app goes on writing.

    \b
    Example: flask --app shop chest prune --older-than 30d
    """  # noqa: D301 - \b is click's mark for lines to keep
    before = time.time_ns() - round(older_than.total_seconds() * 1e9)
    for chest in the_chests():
        store = chest.binding().store
        if not isinstance(store, Retention):
            raise click.ClickException(f"{type(store).__name__} cannot prune: it does not implement Retention")
        deleted = _prune(store, before, keep_unexported=keep_unexported)
        click.echo(f"{deleted:,} records deleted.")


def _prune(store: Retention, before: int, *, keep_unexported: bool) -> int:
    deleted = 0
    while True:
        try:
            found = store.prune(before, limit=BATCH, keep_unexported=keep_unexported)
        except StoreAbsent:
            return deleted
        except Exception as exc:  # noqa: BLE001 - an own store may raise anything
            give_up(exc)
        deleted += found
        if sys.stderr.isatty():
            click.echo(f"\r{deleted:,} records deleted …", err=True, nl=False)
        if found < BATCH:
            return deleted
