"""The questions by hand on MariaDB."""

from benchmarks.by_hand.mysql import asking

__all__ = ["asking"]
