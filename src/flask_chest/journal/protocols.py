"""The seams within a process, between a request and the store: a journal, and the way into it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from flask_chest.record import Record


class Appendable(Protocol):
    """The end of a journal to which the requests of one process append. Any thread may do that."""

    @property
    @abstractmethod
    def instance(self) -> str:
        """Name of this process in `Record.instance`."""

    @abstractmethod
    def call_when_renamed(self, tell: Callable[[str], None], /) -> None:
        """Call *tell* with the new `instance` whenever it must be another one."""

    @property
    @abstractmethod
    def latest_unix_nano(self) -> int:
        """Latest time, in nanoseconds, of a record appended under `instance`, perhaps by a former process."""

    @property
    @abstractmethod
    def durable(self) -> bool:
        """Whether what waits outlives this process."""

    @abstractmethod
    def append(self, record: Record, /) -> int:
        """Take *record* and return how many wait for this process; raise `JournalError` if it is not taken."""

    @abstractmethod
    def append_opened(self, record: Record, /) -> None:
        """Take *record*, whose response streams, for the case that no complete one with its id follows."""

    @abstractmethod
    def waiting(self) -> int:
        """Return how many records of this process were taken and are not stored."""

    @abstractmethod
    def note_losses(self, counts: Mapping[str, int], /) -> bool:
        """Show other processes how many records were lost, by reason; return whether that was possible."""

    @abstractmethod
    def close(self) -> None:
        """Leave what waits to a later process; may be called again. Appending raises `JournalClosed` then."""

    @abstractmethod
    def abandon(self) -> None:
        """Leave to its parent, in a forked child, what is the parent's."""


class Journal(Appendable, Protocol):
    """The queue of one process between its requests, which append, and its writer, which reads.

    One thread at a time reads.
    """

    @abstractmethod
    def call_when_filling(self, tell: Callable[[], None], /) -> None:
        """Call *tell* in a request, before its record counts, whenever another part of the journal is full."""

    @abstractmethod
    def read(self, limit: int, /) -> Sequence[Record]:
        """Return the oldest records that wait, at most *limit*; they wait until `stored` is called.

        They are fewer where so many would take up too much of the journal's bound until they are stored.
        Called again before that, it returns the same records, and newer ones up to *limit*.
        """

    @abstractmethod
    def stored(self) -> None:
        """Remove what `read` returned last: it is stored, or set aside."""

    @abstractmethod
    def set_aside(self, record: Record, reason: str, /) -> None:
        """Keep *record*, which the store will never take, for people, or raise `JournalError`."""

    @abstractmethod
    def is_anything_left(self) -> bool:
        """Return whether processes have left something that `adopt` would take over."""

    @abstractmethod
    def adopt(self) -> None:
        """Take over what processes left that are gone, or that leave theirs to others; `read` returns it too."""


class Intake(Protocol):
    """Where requests leave their records."""

    @abstractmethod
    def take(self, record: Record, /) -> None:
        """Take *record*, or raise why it is lost."""

    @abstractmethod
    def take_opened(self, record: Record, /) -> None:
        """Take *record*, whose response streams; a complete one with its id follows unless this process ends."""

    @abstractmethod
    def wake(self) -> None:
        """Make whoever moves records look soon; called by finalizers, so it waits for nothing."""

    @abstractmethod
    def flush(self, timeout: float, /) -> bool:
        """Wait at most *timeout* seconds until all that was taken is stored; return whether it is."""

    @abstractmethod
    def waiting(self) -> int:
        """Return how many records were taken and are not stored yet."""

    @abstractmethod
    def close(self, timeout: float, /) -> bool:
        """End, after a `flush`; what is not stored by then is left to a later process where that is possible."""

    @abstractmethod
    def abandon(self) -> None:
        """Leave to its parent, in a forked child, what is the parent's."""
