"""Deliver a batch without its poison: the records that the other side will never take.

Left in the batch, one such record would hold up all others for ever. Where the other side does not name it,
halves of the batch are tried; where nothing is taken at all, the other side is failing: no record is convicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from flask_chest.errors import RecordRefused, RecordsRejected, StoreUnavailable, TargetUnavailable, describe
from flask_chest.record import Record

PATIENCE = 5
"""Number of failures in a row, none of which names a record, after which a caller is to be *suspicious*."""
MOST_PROBES = 8
"""Number of single-record failures without one success after which the search stops: all of the batch fails."""


class Poison(NamedTuple):
    """Why a record will never be taken."""

    reason: str
    attempts: int
    """Number of calls in which the record was tried, since it came in this batch."""


def deliver_isolating_poison(
    deliver: Callable[[Sequence[Record]], object],
    records: Sequence[Record],
    *,
    suspicious: bool,
    convict_alone: bool = False,
) -> dict[str, Poison]:
    """Deliver *records* by calling *deliver*; return those that will never be taken, by record id.

    Records that `RecordRefused` or `RecordsRejected` names are left out and the others delivered again. Where it
    names none, they are searched for by halves. Any other exception starts that search only if the caller is
    *suspicious*; a record that is alone in its batch is then convicted only with *convict_alone*, and never by an
    ``OSError``. Where record after record is refused for one and the same reason, the whole batch is convicted
    without further attempts.

    Raises `StoreUnavailable` and `TargetUnavailable` as they come, and any other exception if nothing at all was
    taken: then no record is convicted. When it returns, all other records were taken.
    """
    search = _Search(deliver)
    poison: dict[str, Poison] = {}
    others = records
    while others:
        try:
            search.attempt(others)
        except (StoreUnavailable, TargetUnavailable):
            raise
        except (RecordRefused, RecordsRejected) as refusal:
            named = _named(others, refusal)
            if not named:
                return poison | search.bisect(others)
            poison |= search.convicted(named)
            others = [record for record in others if record.id not in named]
        except Exception as exc:
            if not suspicious:
                raise
            if len(others) > 1:
                return poison | search.bisect(others)
            if not convict_alone or isinstance(exc, OSError):  # which is a network's, or a disk's
                raise
            return poison | search.convicted({others[0].id: describe(exc)})
        else:
            break
    return poison


class _AllAlikeError(Exception):
    """Record after record was refused for the one reason that is this exception's text."""


class _Search:
    """The attempts at one batch, and the search by halves for the poison in it."""

    def __init__(self, deliver: Callable[[Sequence[Record]], object]) -> None:
        self._deliver = deliver
        self._attempts: list[Sequence[Record]] = []
        self._taken = False
        self._reasons: dict[str, str] = {}
        self._unexplained: list[Exception] = []
        """Exceptions at single records that do not say that the record is their cause."""

    def attempt(self, records: Sequence[Record]) -> None:
        self._attempts.append(records)
        self._deliver(records)

    def convicted(self, reasons: Mapping[str, str]) -> dict[str, Poison]:
        """Return the poison that *reasons* tells of, with the number of attempts at each record."""
        return {
            record_id: Poison(
                reason, sum(any(record.id == record_id for record in tried) for tried in self._attempts)
            )
            for record_id, reason in reasons.items()
        }

    def bisect(self, records: Sequence[Record]) -> dict[str, Poison]:
        """Deliver *records* without their poison and return it; raise if nothing was taken."""
        try:
            self._divide(records)
        except _AllAlikeError as alike:
            rest = [record for record in records if record.id not in self._reasons]
            # Those that were tried are neighbours; these are from all over the batch.
            for record in rest[:: len(rest) // MOST_PROBES + 1]:
                self._settle((record,))
            rest = [record for record in rest if record.id not in self._reasons]
            if self._taken:
                self._divide(rest)
            else:
                self._reasons |= dict.fromkeys((record.id for record in rest), str(alike))
        self._doubt(at_most=0)
        return self.convicted(self._reasons)

    def _divide(self, records: Sequence[Record]) -> None:
        if len(records) < 2:  # noqa: PLR2004 - a single record is settled already
            return
        middle = len(records) // 2
        # Both before a search in either: one that is taken acquits the other side, and the search may be long.
        failed = [half for half in (records[:middle], records[middle:]) if not self._settle(half)]
        for half in failed:
            self._divide(half)

    def _settle(self, records: Sequence[Record]) -> bool:
        """Try *records*, and convict a single one that fails; return False if they are to be divided."""
        try:
            self.attempt(records)
        except (StoreUnavailable, TargetUnavailable):
            raise
        except Exception as exc:  # noqa: BLE001 - a third party's store or exporter may raise anything
            if len(records) > 1:
                return False
            self._convict(records[0], exc)
        else:
            self._taken = True
        return True

    def _convict(self, record: Record, error: Exception) -> None:
        if isinstance(error, RecordRefused | RecordsRejected):
            self._reasons |= _named((record,), error)
            kinds = set(self._reasons.values())
            if len(self._reasons) == MOST_PROBES and len(kinds) == 1 and not self._taken:
                raise _AllAlikeError(kinds.pop())
            return
        self._unexplained.append(error)
        self._doubt(at_most=MOST_PROBES - 1)
        self._reasons[record.id] = describe(error)

    def _doubt(self, *, at_most: int) -> None:
        if len(self._unexplained) > at_most and not self._taken:
            raise self._unexplained[-1]


def _named(records: Sequence[Record], refusal: RecordRefused | RecordsRejected) -> dict[str, str]:
    """Return the reasons by the ids of those *records* that *refusal* names; a single record is always meant."""
    reasons = refusal.reasons
    if len(records) == 1:
        return {records[0].id: reasons.get(records[0].id, str(refusal))}
    return {record.id: reasons[record.id] for record in records if record.id in reasons}
