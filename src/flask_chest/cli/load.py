"""``flask chest load``: records come back from files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import click

from flask_chest.cli._group import Failure, asking_store, chest_group, the_chest
from flask_chest.cli._options import chest_option
from flask_chest.cli._output import amount, say, say_progress
from flask_chest.errors import CapabilityMissing, ConfigurationError, RecordRefused, describe
from flask_chest.extension.record_text import record_of
from flask_chest.protocols import CountsDropped, LoadsHistory, Outbox, Store, hand_over
from flask_chest.record import Record

AT_ONCE = 1_000
"""Records that are stored at a time, in a transaction where the store has such."""
_PARQUET = b"PAR1"
"""Beginning of a file of Parquet."""
_SHOWN = 10
"""Refused records whose reasons are printed."""


@chest_group.command("load")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--deliver", is_flag=True, help="Let the exporters deliver these records, as if they were new.")
@chest_option
def load(*, paths: Sequence[Path], deliver: bool, name: str | None) -> None:
    """Store the records of each FILE: JSON lines or Parquet, of query or dump, or a folder with such files.

    A record that the store has already is kept once, so that the same command goes on where it was interrupted.
    No exporter delivers these records, unless told by --deliver; export NAME --since does so at any time. A store
    that does not exist yet is made.

    \b
    Example: flask --app shop chest load /var/archive
    Example: flask --app shop chest load records.jsonl
    """  # noqa: D301 - \b is click's mark for lines to keep
    chest = the_chest(name)
    with asking_store():
        store = chest._state.here.open_store()
        before = _left_out(store)
        loading = _Loading(_write_of(store, deliver=deliver))
        for file in _files(paths):
            loading.take(_records_in(file))
        dropped, conflicts = (after - former for after, former in zip(_left_out(store), before, strict=True))
    say(f"{amount(loading.count)} read; each is kept once.")
    if dropped:
        say(f"{amount(dropped)} left out, deleted from this store before by retention or forget.")
    if conflicts:
        say(f"{amount(conflicts)} left out, kept in this store with other content.")
    if loading.refused:
        say(f"{amount(len(loading.refused))} refused:", err=True)
        say(*(f"  {id_}: {reason}" for id_, reason in islice(loading.refused.items(), _SHOWN)), err=True)
        raise SystemExit(1)


def _write_of(store: Store, *, deliver: bool) -> Callable[[Sequence[Record]], None]:
    if deliver or not isinstance(store, Outbox):
        return store.write
    if not isinstance(store, LoadsHistory):
        raise CapabilityMissing(store, "LoadsHistory")
    return store.load


def _left_out(store: Store) -> tuple[int, int]:
    """Return how many records this process has not stored: since they were deleted, and with other content."""
    return store.dropped if isinstance(store, CountsDropped) else 0, store.status().conflicts


class _Loading:
    """Hands records to *write*, and counts them."""

    def __init__(self, write: Callable[[Sequence[Record]], None]) -> None:
        self._write = write
        self.count = 0
        self.refused: dict[str, str] = {}
        """Id of each record that the store does not take → the reason."""

    def take(self, records: Iterable[Record]) -> None:
        waiting = iter(records)
        while some := list(islice(waiting, AT_ONCE)):
            self._keep(some)
            self.count += len(some)
            say_progress(f"{amount(self.count)} read")

    def _keep(self, records: Sequence[Record]) -> None:
        try:
            hand_over(self._write, records)
        except RecordRefused as exc:
            reasons = exc.reasons or ({records[0].id: describe(exc)} if len(records) == 1 else {})
            self.refused |= reasons
            others = [record for record in records if record.id not in reasons]
            # Where the store does not say which one it refuses, halves are tried.
            parts = (others,) if reasons else (others[: len(others) // 2], others[len(others) // 2 :])
            for part in parts:
                if part and len(part) < len(records):
                    self._keep(part)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(each for ending in ("parquet", "jsonl") for each in path.glob(f"[!.]*.{ending}"))
            if not found:
                raise Failure(f"{path} holds no file whose name ends in .parquet or .jsonl")
            yield from found
        else:
            yield path


def _records_in(path: Path) -> Iterator[Record]:
    try:
        with path.open("rb") as file:
            if file.peek(len(_PARQUET))[: len(_PARQUET)] != _PARQUET:
                yield from _records_of(file, path)
                return
    except OSError as exc:
        raise Failure(f"{path} cannot be read: {exc.strerror or type(exc).__name__}") from exc
    from flask_chest.extension.arrow import records_in  # noqa: PLC0415 - an extra

    for records in records_in(path, size=AT_ONCE):
        yield from records


def _records_of(lines: Iterable[bytes], path: Path) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if not line.isspace():
            try:
                yield record_of(line)
            except ConfigurationError as exc:
                raise Failure(f"{path}, line {number} {exc}: correct or remove it, then load again") from None
