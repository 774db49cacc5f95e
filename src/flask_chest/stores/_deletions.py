"""What was deleted for good: a journal that is replayed later must not bring it back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from flask_chest.record import Query, Record


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    """Records that began before a time are deleted: all of them, or those that match a query."""

    before_unix_nano: int
    query: Query | None = None
    """``None``: retention's cut-off."""

    def covers(self, record: Record) -> bool:
        """Tell whether *record* is not to be kept."""
        return record.time_unix_nano < self.before_unix_nano and (
            self.query is None or self.query.matches(record)
        )


_query_decoder = msgspec.json.Decoder(Query)

encode_query = msgspec.json.encode
"""Make the text that `decode_query` makes the query of."""

decode_query = _query_decoder.decode


def spared(records: Sequence[Record], deletions: Sequence[Deletion]) -> Sequence[Record]:
    """Leave out of *records* what was deleted."""
    if not deletions:
        return records
    return [record for record in records if not any(deletion.covers(record) for deletion in deletions)]
