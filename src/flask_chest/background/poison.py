"""Hands records over without those that the other side will never take, so that these hold up nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from flask_chest.errors import RecordRefused, RecordsRejected, StoreUnavailable, TargetUnavailable, describe
from flask_chest.protocols import hand_over
from flask_chest.record import Record

PATIENCE = 5
"""How often a batch should fail without a word on a record before its records are tried one by one."""
MOST_PROBES = 8
"""So many records that fail alone, and none that does not: whatever the record is, it fails."""


class Poison(NamedTuple):
    """Why a record will never be taken."""

    reason: str
    attempts: int
    """How often it was tried, since it came in this batch."""


def deliver_isolating_poison(
    take: Callable[[Sequence[Record]], object],
    records: Sequence[Record],
    *,
    suspicious: bool,
    convict_alone: bool = False,
) -> dict[str, Poison]:
    """Hand *records* over to a ``write`` or ``export``; give those that it will never take by id.

    Those that it refuses by name are left out, and where it names none they are searched for by halves. So are,
    when the caller is *suspicious*, those at which it raises something else; one that is alone in its batch is
    at fault then only with *convict_alone*. Raises what says that the other side is away, and what it raises
    without a word on a record when it took nothing at all: then nobody is at fault. Where it refuses record
    after record for one reason, all of the batch is at fault without more tries.
    """
    handing = _HandingOver(take)
    refused: dict[str, Poison] = {}
    others = records
    while others:
        try:
            handing.take(others)
        except (StoreUnavailable, TargetUnavailable):
            raise
        except (RecordRefused, RecordsRejected) as refusal:
            named = _named(others, refusal)
            if not named:
                return refused | handing.search(others)
            refused |= handing.faults(named)
            others = [record for record in others if record.id not in named]
        except Exception as exc:
            if not suspicious:
                raise
            if len(others) > 1:
                return refused | handing.search(others)
            if not convict_alone or isinstance(exc, OSError):  # which is a network's, or a disk's
                raise
            return refused | handing.faults({others[0].id: describe(exc)})
        else:
            break
    return refused


class _AllAlikeError(Exception):
    """Record after record was refused, for the reason that this holds."""


class _HandingOver:
    """The calls for one batch, and the search by halves for those at fault in it."""

    def __init__(self, take: Callable[[Sequence[Record]], object]) -> None:
        self._take = take
        self._calls: list[Sequence[Record]] = []
        self._taken = False
        self._reasons: dict[str, str] = {}
        self._unexplained: list[Exception] = []
        """What records that failed alone raised, without a word that it is them."""

    def take(self, records: Sequence[Record]) -> None:
        self._calls.append(records)
        hand_over(self._take, records)

    def faults(self, reasons: Mapping[str, str]) -> dict[str, Poison]:
        """Add to each of *reasons* how often the record was tried."""
        return {
            record_id: Poison(reason, sum(any(record.id == record_id for record in call) for call in self._calls))
            for record_id, reason in reasons.items()
        }

    def search(self, records: Sequence[Record]) -> dict[str, Poison]:
        """Hand over *records* but those at fault, and give these; raise when none was taken."""
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
        return self.faults(self._reasons)

    def _divide(self, records: Sequence[Record]) -> None:
        if len(records) < 2:  # noqa: PLR2004 - one is settled, and there is none to divide
            return
        middle = len(records) // 2
        # Both before a search in either: one that is taken acquits the other side, and the search may be long.
        failed = [half for half in (records[:middle], records[middle:]) if not self._settle(half)]
        for half in failed:
            self._divide(half)

    def _settle(self, records: Sequence[Record]) -> bool:
        """Hand over *records*, or convict the only one; False when they are to be divided."""
        try:
            self.take(records)
        except (StoreUnavailable, TargetUnavailable):
            raise
        except Exception as exc:  # noqa: BLE001 - an own store or exporter may raise anything at its record
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
    """Give the reasons for those of *records* that *refusal* is about; none where it does not say."""
    reasons = refusal.reasons
    if len(records) == 1:
        return {records[0].id: reasons.get(records[0].id, str(refusal))}
    return {record.id: reasons[record.id] for record in records if record.id in reasons}
