"""What tells stores apart whose servers, databases and names are the same."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import msgspec

_DIGITS = 16


def full_address(place: str, choosing: Mapping[str, object]) -> str:
    """Add to a *place* a digest of the other parameters that choose its tables, as a role does.

    Only those, since a password could be guessed from a digest, and a worker with other time-outs
    still stores what the app leaves.
    """
    given = {name: str(value) for name, value in sorted(choosing.items()) if value not in {None, ""}}
    if not given:
        return place
    text = msgspec.json.encode(list(given.items()))
    return f"{place}?{sha256(text).hexdigest()[:_DIGITS]}"
