"""``flask chest``: look at a chest, and find out why one stays empty. No command creates a database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import click
import msgspec
from flask import Flask, current_app
from flask.cli import AppGroup

from flask_chest.errors import StoreAbsent
from flask_chest.extension import FlaskChest, chests_of, endpoints_of_absent_chests
from flask_chest.protocols import ExporterRegistry, ExporterStatus, StoreStatus
from flask_chest.record import Query, Record, encode_variables
from flask_chest.recorder import behind
from flask_chest.rules import all_rules_of, misplaced_views
from flask_chest.stats import describe


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


chest_group = _ChestGroup("chest", help="Look at what flask_chest keeps.")


@chest_group.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def status(*, as_json: bool) -> None:
    """Show what each chest of the app holds, and where its exporters stand.

    \b
    Example: flask --app shop chest status --json

    Exits with 1 when a store does not answer.
    """  # noqa: D301 - \b is click's mark for lines to keep
    reports = [_report(chest) for chest in _chests()]
    if as_json:
        click.echo(msgspec.json.encode({"chests": reports}).decode())
    else:
        for report in reports:
            click.echo("\n".join(_status_lines(report)))
    if any(report.error is not None for report in reports):
        raise SystemExit(1)


class _Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What there is to say of one chest: its store and exporters, or why they cannot be seen."""

    store: StoreStatus | None = None
    exporters: list[ExporterStatus] = []
    absent: str | None = None
    error: str | None = None


def _report(chest: FlaskChest) -> _Report:
    try:
        store = chest.binding().store
        found = store.status()
        exporters = list(store.exporters()) if isinstance(store, ExporterRegistry) else []
    except StoreAbsent as exc:
        return _Report(absent=str(exc))
    except Exception as exc:  # noqa: BLE001 - an own store may raise anything, and its text may hold a secret
        return _Report(error=describe(exc).removeprefix(": "))
    return _Report(store=found, exporters=exporters)


@chest_group.command("doctor")
def doctor() -> None:
    """Say in sentences why nothing is recorded or exported, with the way out.

    \b
    Example: flask --app shop chest doctor

    Exits with 1 when something is wrong.
    """  # noqa: D301
    app = behind(current_app)
    findings = [finding for examine in _EXAMINATIONS for finding in examine(app)]
    for finding in findings:
        click.echo(f"- {finding}")
    if findings:
        raise SystemExit(1)
    click.echo("\n".join(["Nothing is wrong.", *_nothing_recorded_yet(app)]))


@chest_group.command("show")
@click.argument("id_", metavar="ID")
def show(*, id_: str) -> None:
    """Show the records of the request or trace ID, with a link to the trace where trace_url is set.

    \b
    Example: flask --app shop chest show 0af7651916cd43dd8448eb211c80319c

    Exits with 1 when there is none.
    """  # noqa: D301
    found = 0
    for chest in _chests():
        for record in _records(chest, id_):
            found += 1
            click.echo("\n".join(_record_lines(record, chest.trace_link(record))))
    if not found:
        raise click.ClickException(f"No record has the request id or the trace id {id_!r}")


def _records(chest: FlaskChest, id_: str) -> list[Record]:
    store = chest.binding().store
    try:
        return list(store.query(Query(request_id=id_))) or list(store.query(Query(trace_id=id_)))
    except StoreAbsent:
        return []
    except Exception as exc:  # an own store may raise anything, and its text may hold a secret
        raise click.ClickException(f"not available{describe(exc)}") from exc


def _record_lines(record: Record, link: str | None) -> Iterator[str]:
    error = f", {record.error}" if record.error is not None else ""
    yield (
        f"{_moment(record.time_unix_nano)} {record.method} {record.route or '-'} "
        f"{record.status_code}{error}, {record.duration_ns / 1e6:.1f} ms"
    )
    yield f"  request {record.request_id}"
    if record.trace_id is not None:
        yield f"  trace {link or record.trace_id}"
    yield f"  {encode_variables(record.variables)}"


@chest_group.group("exporters")
def exporters() -> None:
    """List the exporters that the stores know, or remove one that is gone."""


@exporters.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def list_exporters(*, as_json: bool) -> None:
    """Show where each exporter stands, also those that the app does not have any more.

    \b
    Example: flask --app shop chest exporters list

    Exits with 1 when a store does not answer.
    """  # noqa: D301
    reports = [(chest, _report(chest)) for chest in _chests()]
    for _, report in reports:
        if report.error is not None:
            raise click.ClickException(f"not available: {report.error}")
    if as_json:
        known = [exporter for _, report in reports for exporter in report.exporters]
        click.echo(msgspec.json.encode({"exporters": known}).decode())
        return
    for chest, report in reports:
        for exporter in report.exporters:
            gone = "" if exporter.name in chest.exporter_names else " (the app does not have it any more)"
            click.echo(f"{_exporter_line(exporter)}{gone}")


@exporters.command("remove")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also one that the app still has: it begins anew.")
def remove_exporter(name: str, *, force: bool) -> None:
    """Forget the exporter NAME: its place, and what was set aside for it.

    \b
    Example: flask --app shop chest exporters remove influxdb
    """  # noqa: D301
    removed = 0
    for chest in _chests():
        if name in chest.exporter_names and not force:
            raise click.ClickException(
                f"The app still has the exporter {name!r}, which would deliver everything again: "
                "take it out of the app first, or use --force."
            )
        store = chest.binding().store
        try:
            removed += isinstance(store, ExporterRegistry) and store.drop(name)
        except StoreAbsent:
            continue
        except Exception as exc:  # an own store may raise anything, and its text may hold a secret
            raise click.ClickException(f"not available{describe(exc)}") from exc
    if not removed:
        raise click.ClickException(f"No store knows an exporter {name!r}; see: flask chest exporters list")
    click.echo(f"The exporter {name!r} is forgotten.")


def _chests() -> list[FlaskChest]:
    chests = chests_of(behind(current_app))
    if not chests:
        raise click.ClickException(_NO_CHEST.format(name=current_app.name))
    return chests


_NO_CHEST = "The app {name!r} has no chest: make one, as in FlaskChestSQLite(app), or call chest.init_app(app)."


def _status_lines(report: _Report) -> Iterator[str]:
    if report.store is None:
        yield f"no records yet: {report.absent}" if report.error is None else f"not available: {report.error}"
        return
    found = report.store
    size = "" if found.size_bytes is None else f", {found.size_bytes / 1024:,.0f} KiB"
    yield f"{found.description}: {found.records:,} records{size}"
    if found.oldest_unix_nano is not None and found.newest_unix_nano is not None:
        yield f"  from {_moment(found.oldest_unix_nano)} to {_moment(found.newest_unix_nano)}"
    for exporter in report.exporters:
        yield f"  {_exporter_line(exporter)}"


def _exporter_line(exporter: ExporterStatus) -> str:
    success = "never" if exporter.last_success_unix_nano is None else _moment(exporter.last_success_unix_nano)
    holder = f", being delivered by {exporter.holder}" if exporter.holder else ""
    return (
        f"exporter {exporter.name}: {exporter.backlog:,} pending, {exporter.rejected:,} set aside, "
        f"last success {success}{holder}"
    )


def _moment(unix_nano: int) -> str:
    return datetime.fromtimestamp(unix_nano / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _no_chest(app: Flask) -> Iterator[str]:
    if not chests_of(app):
        yield _NO_CHEST.format(name=app.name)


def _nothing_tracked(app: Flask) -> Iterator[str]:
    chests = chests_of(app)
    app_wide = any(chest.binding().app_rule is not None or chest.binding().blueprint_rules for chest in chests)
    decorated = any(all_rules_of(view) for view in app.view_functions.values())
    if chests and not app_wide and not decorated and not misplaced_views(app.view_functions):
        yield (
            "No view is decorated with @flask_chest and no chest has tracked_vars, so nothing is recorded: "
            "decorate a view, or pass tracked_vars= to the chest. (A decorator above it that does not use "
            "functools.wraps hides it.)"
        )


def _misplaced(app: Flask) -> Iterator[str]:
    for endpoint in misplaced_views(app.view_functions):
        yield (
            f"@flask_chest stands above @app.route for the endpoint {endpoint!r}, so the route serves the bare "
            "view and nothing is recorded: put @flask_chest below @app.route."
        )


def _absent_chests(app: Flask) -> Iterator[str]:
    for endpoint in endpoints_of_absent_chests(app):
        yield (
            f"@flask_chest of the endpoint {endpoint!r} names in chests= one that is not registered on the app: "
            "call its init_app(app)."
        )


def _store_unreachable(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        if (error := _report(chest).error) is not None:
            yield f"The store does not answer: {error}"


def _nothing_recorded_yet(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        if (absent := _report(chest).absent) is not None:
            yield f"Nothing is recorded yet: {absent}"


def _exports_stuck(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        binding = chest.binding()
        if chest.exporter_names and not isinstance(binding.store, ExporterRegistry):
            kind = type(binding.store).__name__
            yield f"{kind} cannot export: it does not implement Outbox and ExporterRegistry."
        if chest.exporter_names and binding.settings.scheduler == "off":
            yield (
                "The chest has exporters, but its scheduler is off: set CHEST_SCHEDULER to auto, "
                "or call chest.run_exports() yourself."
            )
        for exporter in _report(chest).exporters:
            if exporter.name in chest.exporter_names and exporter.backlog and not exporter.last_success_unix_nano:
                yield (
                    f"The exporter {exporter.name!r} has {exporter.backlog:,} records pending and never "
                    "succeeded: its errors are in the app's log, and chest.run_exports() returns them."
                )


_EXAMINATIONS = (_no_chest, _nothing_tracked, _misplaced, _absent_chests, _store_unreachable, _exports_stuck)
