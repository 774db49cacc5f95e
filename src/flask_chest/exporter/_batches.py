"""What becomes of a batch that its target does not take as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flask_chest.errors import RecordsRejected
from flask_chest.record import Record


def rejection(message: str, records: Sequence[Record]) -> RecordsRejected:
    """Return the error for *records* that the target rejected; only a single record is named as the culprit."""
    return RecordsRejected(message, {records[0].id: message} if len(records) == 1 else {})


def deliver_halves(deliver: Callable[[Sequence[Record]], None], records: Sequence[Record]) -> None:
    """Call *deliver* with each half of *records*, with the second also when the first has rejected ones."""
    middle = len(records) // 2
    rejections: list[RecordsRejected] = []
    for half in (records[:middle], records[middle:]):
        try:
            deliver(half)
        except RecordsRejected as exc:
            rejections.append(exc)
    if rejections:
        # Where one half names its culprits and the other cannot, the other comes again without them.
        reasons = {record_id: reason for each in rejections for record_id, reason in each.reasons.items()}
        raise RecordsRejected(str(rejections[0]), reasons) from rejections[0]
