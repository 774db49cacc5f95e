"""What may be wrong with the time: how far a clock may be off before nobody believes it."""

from __future__ import annotations

MAX_STEP_NANO = 1_000_000_000
"""A clock that is set back by more has been ahead: what goes on from its last time would stay ahead too."""
