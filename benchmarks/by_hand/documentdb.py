"""The questions by hand on another engine behind MongoDB's protocol."""

from benchmarks.by_hand.mongodb import asking

__all__ = ["asking"]
