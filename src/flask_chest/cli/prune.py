"""``flask chest prune``: what is old goes."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import click

from flask_chest._clocks import nanoseconds
from flask_chest.background.retention import in_batches, leaves_some, tell_time
from flask_chest.cli._group import Failure, asking_store, chest_group, the_chests
from flask_chest.cli._options import said
from flask_chest.cli._output import amount, say, say_progress
from flask_chest.errors import CapabilityMissing, StoreAbsent
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.question_text import span
from flask_chest.protocols import Retention


@chest_group.command("prune")
@click.option(
    "--older-than",
    type=said(span),
    help="Age from which records are deleted: 90s, 15m, 2h, 30d, 4w. [default: CHEST_RETENTION]",
)
@click.option(
    "--keep-unexported/--unexported-too",
    default=True,
    show_default=True,
    help="Keep records that an exporter has not had yet.",
)
def prune(*, older_than: timedelta | None, keep_unexported: bool) -> None:
    """Delete the records of requests that began long ago, in small batches, while the app goes on writing.

    Without --older-than, applies CHEST_RETENTION and CHEST_RETENTION_CAP.

    \b
    Example: flask --app shop chest prune --older-than 30d
    """  # noqa: D301 - \b is click's mark for lines to keep
    for chest in the_chests():
        with suppress(StoreAbsent), asking_store():
            if older_than is None:
                _retain(chest)
            else:
                _prune(chest, older_than, keep_unexported=keep_unexported)
            continue
        say(f"{amount(0)} deleted.")  # there is no store yet


def _retain(chest: FlaskChest) -> None:
    if not chest._state.settings.retains:
        raise Failure("nothing says what to delete; give --older-than 30d, or set CHEST_RETENTION to 30d")
    chest._state.here.store.status()  # which a store that is not there yet refuses, instead of being made
    report = chest.run_retention()
    if report.busy:
        raise Failure("another process is deleting; try again when it has finished")
    if report.doubt is not None:
        raise Failure(f"nothing was deleted: {report.doubt}")
    cap = f", {report.unexported:,} of them not exported" if report.unexported else ""
    say(f"{amount(report.deleted)} deleted{cap}.")
    if report.spared:
        say(f"{amount(report.spared)} dated ahead of the clock; no limit applies to them until then.")
    if report.left:
        say("Other records stay: an exporter has not had them yet, or this run used up its time.")
    for name in report.absent:
        say(f"The exporter {name!r} keeps others: it has not run for a week; see flask chest exporters list")


def _prune(chest: FlaskChest, older_than: timedelta, *, keep_unexported: bool) -> None:
    store = chest._state.here.store
    if not isinstance(store, Retention):
        raise CapabilityMissing(store, "Retention")
    told = tell_time(store)
    if told.doubt is not None:
        raise Failure(f"nothing was deleted: {told.doubt}")
    before = told.unix_nano - nanoseconds(older_than)
    deleted = 0
    for count in in_batches(store, before, keep_unexported=keep_unexported, go_on=lambda: True):
        deleted += count
        say_progress(f"{amount(deleted)} deleted")
    say(f"{amount(deleted)} deleted.")
    if keep_unexported and leaves_some(store, before):
        say("Other records stay: an exporter has not had them yet; --unexported-too deletes them too.")
