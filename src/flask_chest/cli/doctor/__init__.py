"""``flask chest doctor``: what is wrong first, and only then what deserves a look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import tzinfo

from flask import Flask, current_app

from flask_chest.cli._group import chest_group
from flask_chest.cli._options import zone_option
from flask_chest.cli._output import say
from flask_chest.cli.doctor import _app, _exporters, _hints, _journal, _partitions, _store
from flask_chest.extension.chest import FlaskChest, chests_of
from flask_chest.extension.middleware import behind


@chest_group.command("doctor")
@zone_option
def doctor(*, zone: tzinfo) -> None:  # noqa: ARG001 - `zone_said` has it where a time is printed
    """Explain why nothing is recorded or exported, with the way out.

    \b
    Example: flask --app shop chest doctor

    Exits with 1 when something is wrong.
    """  # noqa: D301
    app = behind(current_app)
    if findings := _look(app, _WRONG_WITH_APP, _WRONG_WITH_CHEST):
        say(*(f"- {finding}" for finding in findings))
        raise SystemExit(1)
    say("Nothing is wrong.", *_look(app, _ODD_OF_APP, _ODD_OF_CHEST))


_WRONG_WITH_APP = (
    _app.another_distribution,
    _app.no_chest,
    _app.nothing_tracked,
    _app.misplaced,
    _app.absent_chests,
    _app.tracing_begins_late,
)
_WRONG_WITH_CHEST = (
    _app.misspelt_settings,
    _journal.run_by_another_account,
    _store.store_unreachable,
    _journal.journal_amiss,
    _exporters.exports_stuck,
    _partitions.no_partition_ahead,
)
_ODD_OF_APP = (_hints.same_tables, _hints.routed_by_losses)
_ODD_OF_CHEST = (
    _hints.nothing_recorded_yet,
    _hints.migrated_by_alembic,
    _hints.without_index,
    _hints.without_view,
    _partitions.other_partitions,
    _hints.journal_of_others,
    _hints.errors_outweigh,
    _hints.never_set,
)


def _look(
    app: Flask,
    of_app: Sequence[Callable[[Flask], Iterator[str]]],
    of_chest: Sequence[Callable[[FlaskChest], Iterator[str]]],
) -> list[str]:
    """Return what the functions find, each sentence once: chests may share a journal or a store."""
    said = [sentence for look in of_app for sentence in look(app)]
    said += [sentence for chest in chests_of(app) for look in of_chest for sentence in look(chest)]
    return list(dict.fromkeys(said))
