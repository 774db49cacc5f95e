"""The group ``flask chest``, and what its commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from flask import current_app
from flask.cli import AppGroup, NoAppException

from flask_chest.errors import (
    CapabilityMissing,
    ConfigurationError,
    QueryTimeout,
    StoreAbsent,
    describe,
    printable,
)
from flask_chest.extension.chest import FlaskChest, chests_of
from flask_chest.extension.middleware import behind
from flask_chest.extension.report import OtherAccount, Report, report_of

_SAID_WHOLE = ConfigurationError, CapabilityMissing, StoreAbsent, QueryTimeout, OtherAccount
"""Errors that their user can correct, and whose message needs nothing before it."""


class _ChestGroup(AppGroup):
    """Keeps settings out of options: Flask's prefix would make ``FLASK_CHEST_…`` their defaults."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        # Click takes a prefix of None for "derive it from the parent's", so the parent's is hidden meanwhile.
        outer = parent.auto_envvar_prefix if parent is not None else None
        if parent is not None:
            parent.auto_envvar_prefix = None
        try:
            return super().make_context(info_name, args, parent, **extra)
        finally:
            if parent is not None:
                parent.auto_envvar_prefix = outer

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; exit with the sentence of what its user can correct, also where no app can be made."""
        try:
            return super().invoke(ctx)
        except _SAID_WHOLE as exc:
            raise Failure(str(exc)) from exc
        except NoAppException as exc:  # Flask's, for what is an ImportError too, as that of a missing driver
            if isinstance(exc.__context__, ConfigurationError):
                raise Failure(str(exc.__context__)) from exc
            raise


class Failure(click.ClickException):
    """Ends a command with a sentence and exit code 1."""

    def format_message(self) -> str:
        """Return the sentence, in which foreign text may stand."""
        return printable(self.message)


chest_group = _ChestGroup("chest", help="Look after what flask_chest keeps.")


NO_CHEST = "The app {name!r} has no chest: make one, as in FlaskChestSQLite(app), or call chest.init_app(app)."


def the_chests() -> list[FlaskChest]:
    """List the chests of the app; exit where it has none."""
    chests = chests_of(behind(current_app))
    if not chests:
        raise Failure(NO_CHEST.format(name=current_app.name))
    return chests


def the_chest(name: str | None) -> FlaskChest:
    """Return the chest of the app that has this *name*, or its only one; exit where that is not said."""
    chests = the_chests()
    names = [chest.name for chest in chests]
    if name is None and len(chests) == 1:
        return chests[0]
    if name not in names:
        raise Failure(f"The app has the chests {', '.join(names)}: choose one, as in --chest {names[0]}")
    return chests[names.index(name)]


def answered_report(chest: FlaskChest) -> Report:
    """Return how *chest* is; exit where its store does not answer."""
    report = report_of(chest)
    if report.error is not None:
        raise Failure(f"not available: {report.error}")
    return report


@contextmanager
def asking_store() -> Iterator[None]:
    """Exit where the store fails in this block, without the text of an error that is not ours."""
    try:
        yield
    except (*_SAID_WHOLE, click.ClickException):
        raise
    except Exception as exc:  # a third-party store may raise anything
        raise Failure(f"not available: {describe(exc)}") from exc
