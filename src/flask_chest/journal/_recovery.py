"""Recovery of what others left in a folder: segments of dead owners are adopted, living owners followed.

Owners that store their own records are left alone while they live, and so is what was made for another store.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flask_chest._clocks import MAX_STEP_NANO
from flask_chest.journal._frames import OTHER_ID
from flask_chest.journal._queue import SegmentQueue
from flask_chest.journal._segments import SegmentName, read_identity, segments_in
from flask_chest.journal._slots import Slot, is_followed, is_held, left_from, take, take_following
from flask_chest.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adopted:
    """What a former owner left, and the slot that was taken for it; ``None`` if somebody else has that."""

    queue: SegmentQueue
    slot: Slot | None

    def end(self) -> None:
        self.queue.close()
        if self.slot is not None:
            latest = self.queue.latest_unix_nano
            if self.slot.last_time_unix_nano() < latest < time.time_ns() + MAX_STEP_NANO:
                self.slot.note_time(latest)
            self.slot.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Followed:
    """What a living owner leaves to others, from its segment number *first* on."""

    queue: SegmentQueue
    task: Slot
    first: int

    def end(self) -> None:
        self.queue.close()
        self.task.release()


@dataclass(eq=False, repr=False)
class Recovery:
    """Finds, in a folder, the records that their owners do not store, and reads them owner by owner.

    What was made for another store is left alone.
    """

    folder: Path
    store: str | None
    """Digest of the store's address; with ``None`` nothing is another's, and living owners are left alone."""
    identify: Callable[[], str | None]
    """Callable that returns the id of the store, asking it if need be, or ``None`` while that is not possible."""
    own: int
    """Number of this process's slot, which is left alone."""
    report: Callable[[str], None]
    """Callable that is told a reason for whatever is found damaged or is left alone."""
    _adopted: deque[_Adopted] = field(default_factory=deque)
    _followed: dict[int, _Followed] = field(default_factory=dict)
    _left_alone: set[SegmentName] = field(default_factory=set)
    _closed: set[int] = field(default_factory=set)
    """Slots that were reported to be another user's."""

    def adopt(self, names: Iterable[SegmentName], *, slot: Slot | None = None) -> bool:
        """Adopt the segments *names*, whose owner is gone; return False while it is not known whose they are."""
        taken = {name for adopted in self._adopted for name in adopted.queue.names}
        adopted = _Adopted(queue=SegmentQueue(self.folder, report=self.report), slot=slot)
        ours = self._ours(name for name in names if name not in taken)
        for name in ours or ():
            adopted.queue.add(name)
        if adopted.queue.empty:
            adopted.end()
        else:
            self._adopted.append(adopted)
        return ours is not None

    def are_any_left(self) -> bool:
        """Return whether a look would find segments whose owner is gone, or leaves them while nobody follows."""
        for number in {name.slot for name in segments_in(self.folder)} - {self.own}:
            if not is_held(self.folder, number):
                return True
            if left_from(self.folder, number) is not None and not is_followed(self.folder, number):
                return True
        return False

    def poll(self, *, busy: SegmentQueue | None) -> None:
        """Look for segments whose owner is gone, and for owners that leave theirs; *busy* stays as it is."""
        held = {adopted.slot.number for adopted in self._adopted if adopted.slot is not None}
        numbers = {name.slot for name in segments_in(self.folder)} - held - {self.own}
        for number in sorted(numbers | self._followed.keys()):
            followed = self._followed.get(number)
            if followed is None or followed.queue is not busy:
                try:
                    self._poll_slot(number)
                except OSError:  # what is another user's stops nothing of ours
                    if number not in self._closed:
                        self._closed.add(number)
                        self.report("a slot of the journal is another user's, and left alone")

    def read(self, limit: int) -> tuple[SegmentQueue, list[Record]] | None:
        """Return at most *limit* records of one owner and their queue; ``None`` when there are none."""
        while self._adopted:
            queue = self._adopted[0].queue
            records = queue.read(limit) or queue.interrupted(limit)
            if records:
                return queue, records
            queue.stored()
            self._adopted.popleft().end()
        for number, followed in tuple(self._followed.items()):
            records = followed.queue.read(limit)
            if records:
                self._followed[number] = self._followed.pop(number)  # the last in turn now
                return followed.queue, records
            followed.queue.stored()
        return None

    def close(self) -> None:
        """Leave what waits to others."""
        while self._adopted:
            self._adopted.popleft().end()
        for number in tuple(self._followed):
            self._followed.pop(number).end()

    def abandon(self) -> None:
        """Close this forked child's copies of the files, and leave everything to the parent."""
        for adopted in self._adopted:
            adopted.queue.close()
            if adopted.slot is not None:
                adopted.slot.close()
        for followed in self._followed.values():
            followed.queue.close()
            followed.task.close()

    def _poll_slot(self, number: int) -> None:
        slot = take(self.folder, number)
        if slot is None:
            self._follow(number)
            return
        if number in self._followed:
            self._followed.pop(number).end()
        self.adopt(segments_in(self.folder, slot=number), slot=slot)

    def _follow(self, number: int) -> None:
        first = left_from(self.folder, number) if self.store is not None else None
        followed = self._followed.get(number)
        if followed is not None and followed.first != first:
            self._followed.pop(number).end()  # its slot has a new owner
            followed = None
        if first is None:
            return
        names = segments_in(self.folder, slot=number)
        if followed is None:
            task = take_following(self.folder, number)
            if task is None:
                return
            followed = _Followed(queue=SegmentQueue(self.folder, report=self.report), task=task, first=first)
            self._followed[number] = followed
            self.adopt([name for name in names if name.serial < first])
        known = followed.queue.names
        new = {name for name in names if name.serial >= first and name not in known}
        followed.queue.follow(self._ours(sorted(new)) or ())

    def _ours(self, names: Iterable[SegmentName]) -> list[SegmentName] | None:
        """Return those that were made for our store; ``None`` while it is asked for its id and does not answer.

        The address is the same where its meaning has changed: behind a service's name, say, or an option file.
        """
        found = list(self._of_our_address(names))
        if all(store_id is None for _, store_id in found) or self.store is None:
            return [name for name, _ in found]
        own_id = self.identify()
        if own_id is None:
            return None
        for name, store_id in found:
            if store_id not in {None, own_id}:
                self._leave_alone(name, OTHER_ID)
        return [name for name, store_id in found if store_id in {None, own_id}]

    def _of_our_address(self, names: Iterable[SegmentName]) -> Iterator[tuple[SegmentName, str | None]]:
        """Yield what was made for our store's address, each with the id of the store that was found there."""
        for name in names:
            try:
                header = read_identity(self.folder, name)
            except FileNotFoundError:  # another process has stored it
                continue
            except OSError:
                self.report("a segment of the journal cannot be read, and is left alone")
                continue
            # A damaged header says nothing; the folder and the name say enough.
            if header is None:
                yield name, None
            elif (why := header.why_foreign(self.store)) is not None:
                self._leave_alone(name, why)
            else:
                yield name, header.store_id

    def _leave_alone(self, name: SegmentName, why: str) -> None:
        if name not in self._left_alone:
            self._left_alone.add(name)
            self.report(f"a segment of the journal is {why}, and left alone")
