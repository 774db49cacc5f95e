"""The bytes of a journal: a segment's header, and the frames that follow it.

::

    header  512 bytes, in every version: the magic bytes, version, length and CRC-32 of the identity,
            the stored offset and its CRC-32, by how much more was passed, the store's id and its CRC-32,
            the identity as JSON, zeros
    frame   marker (8 bytes), CRC-32 of the marker and all that follows, length of the payload, kind, payload

Integers are little-endian, of 32 bits but for the stored offset, which has 64, and the kind, which has 8. The
marker is random and another one for each segment, as the sync marker of Avro's container files is: a client that
puts the bytes of a frame into a variable cannot make them pass for one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal
from zlib import crc32

import msgspec

from flask_chest.record import Record

MAGIC = b"flchest\n"
VERSION = 1
HEADER_BYTES = 512
MARKER_BYTES = 8
FRAME_HEAD_BYTES = MARKER_BYTES + 9
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
OTHER_ADDRESS = "of another store"
OTHER_ID = "of another store at the same address"

COMPLETE: Literal[0] = 0
"""A record as it is to be stored."""
OPENED: Literal[1] = 1
"""A record whose response streams: it counts only if no complete one with its id follows."""

_HEADER = struct.Struct("<8sIII")
_STORED = struct.Struct("<QI")
_AHEAD = struct.Struct("<I")
STORED_AT = 24
"""Place of the stored offset in the header."""
_AHEAD_AT = STORED_AT + _STORED.size
_STORE_ID = struct.Struct("<16sI")
_STORE_ID_AT = 40
_IDENTITY_AT = 64
_OFFSET = struct.Struct("<Q")
_CRC = struct.Struct("<I")
pack_crc = _CRC.pack
pack_length_and_kind = struct.Struct("<IB").pack
_FRAME_HEAD = struct.Struct("<8sIIB")
_BODY_AT = MARKER_BYTES + _CRC.size


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whose records a segment holds."""

    chest: str
    store: str
    """A digest of the store's address, all that chooses it included: nobody replays a segment into another."""
    instance: str


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment says of itself."""

    version: int
    identity: Identity | None
    """``None`` in a version that this release does not know."""
    store_id: str | None = None
    """Id of the store that was found at that address; ``None`` until its owner has reached it."""

    def why_foreign(self, store: str | None, store_id: str | None = None) -> str | None:
        """Return why it is nothing for *store*, by the digest of an address, or ``None`` if it is for that one.

        With *store* of ``None`` it is for any. Without *store_id* the address alone tells.
        """
        if self.identity is None:
            return f"of the unknown version {self.version}"
        if store not in {None, self.identity.store}:
            return OTHER_ADDRESS
        return OTHER_ID if store_id is not None and self.store_id not in {None, store_id} else None


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame and where it lies in its segment."""

    kind: int
    payload: bytes
    begin: int
    end: int


class Skipped(msgspec.Struct, frozen=True):
    """Bytes that are no frame, or a damaged one."""

    count: int
    end: int


_identity_decoder = msgspec.json.Decoder(Identity)

encode_record = msgspec.msgpack.Encoder().encode
"""Return the payload of a record: its fields in their order, in MessagePack."""


decode_record = msgspec.msgpack.Decoder(Record).decode
"""Return the record of a payload; raise ``ValueError`` when it is not one of this release."""


def make_header(identity: Identity, store_id: str | None = None) -> bytes:
    """Return a segment's header, with nothing stored yet."""
    described = msgspec.json.encode(identity)
    if len(described) > HEADER_BYTES - _IDENTITY_AT:
        raise ValueError(f"the identity takes {len(described)} bytes, at most {HEADER_BYTES - _IDENTITY_AT} fit")
    head = _HEADER.pack(MAGIC, VERSION, len(described), _identity_crc(VERSION, described))
    fixed = head.ljust(STORED_AT, b"\0") + pack_passed(HEADER_BYTES, HEADER_BYTES, store_id)
    return (fixed.ljust(_IDENTITY_AT, b"\0") + described).ljust(HEADER_BYTES, b"\0")


def read_header(header: bytes) -> Header | None:
    """Return what a segment says of itself; ``None`` when that is damaged."""
    if len(header) < HEADER_BYTES:
        return None
    magic, version, length, crc = _HEADER.unpack_from(header)
    described = header[_IDENTITY_AT : _IDENTITY_AT + length]
    if magic != MAGIC or len(described) != length or crc != _identity_crc(version, described):
        return None
    if version != VERSION:
        return Header(version=version, identity=None)
    try:
        identity = _identity_decoder.decode(described)
    except msgspec.DecodeError:
        return None
    return Header(version=version, identity=identity, store_id=_read_store_id(header))


def pack_stored(offset: int) -> bytes:
    """Return what is written at `STORED_AT`: up to where the segment's records are stored."""
    return _STORED.pack(offset, crc32(_OFFSET.pack(offset)))


def read_stored(header: bytes, *, size: int) -> int:
    """Return up to where a segment of *size* bytes is stored; its beginning when that is damaged."""
    if len(header) >= HEADER_BYTES:
        offset, crc = _STORED.unpack_from(header, STORED_AT)
        if crc == crc32(_OFFSET.pack(offset)) and HEADER_BYTES <= offset <= size:
            return int(offset)
    return HEADER_BYTES


def pack_passed(stored: int, passed: int, store_id: str | None = None) -> bytes:
    """Return what is written at `STORED_AT`: the offset *stored*, and up to where complete records are stored.

    Behind the former is what opened a record that still streams. The latter is for counts alone. The id of the
    store goes with them once it is known; until then the one that may be there stays.
    """
    offsets = pack_stored(stored) + _AHEAD.pack(min(max(0, passed - stored), 2**32 - 1))
    if store_id is None:
        return offsets
    packed = bytes.fromhex(store_id)
    return offsets + _STORE_ID.pack(packed, crc32(packed))


def _read_store_id(header: bytes) -> str | None:
    packed, crc = _STORE_ID.unpack_from(header, _STORE_ID_AT)
    return packed.hex() if crc == crc32(packed) and any(packed) else None


def read_passed(header: bytes, *, size: int) -> int:
    """Return up to where the complete records of a segment of *size* bytes are stored."""
    stored = read_stored(header, size=size)
    ahead: int = _AHEAD.unpack_from(header, _AHEAD_AT)[0] if len(header) >= HEADER_BYTES else 0
    return min(size, stored + ahead)


def scan(data: bytes, marker: bytes, *, complete: bool, base: int = 0) -> Iterator[Frame | Skipped]:
    """Yield the frames in *data*, which begins at *base* in its segment, and what lies between them.

    Unless *data* is *complete*, the search ends at what may be the beginning of a frame that goes on behind it.
    """
    at = 0
    view = memoryview(data)
    seed = crc32(marker)
    while at < len(data):
        found = _frame_at(data, view, at, marker, seed, base)
        if type(found) is Frame:
            yield found
            at = found.end - base
            continue
        if found is _CUT and not complete:
            return
        begin = at
        at = _resume(data, at + 1, marker, complete=complete)
        yield Skipped(at - begin, base + at)


_CUT = object()
"""Stands for a frame that may go on behind the data."""


def _frame_at(
    data: bytes, view: memoryview, at: int, marker: bytes, seed: int, base: int
) -> Frame | object | None:
    if len(data) - at < FRAME_HEAD_BYTES:
        return _CUT if marker.startswith(data[at : at + MARKER_BYTES]) else None
    found, crc, length, kind = _FRAME_HEAD.unpack_from(data, at)
    if found != marker or not 0 < length <= MAX_PAYLOAD_BYTES:
        return None
    end = at + FRAME_HEAD_BYTES + length
    if end > len(data):
        return _CUT
    if crc != crc32(view[at + _BODY_AT : end], seed):
        return None
    return Frame(kind, data[at + FRAME_HEAD_BYTES : end], base + at, base + end)


def _resume(data: bytes, at: int, marker: bytes, *, complete: bool) -> int:
    """Return the place of the next marker, or of what may become one when more data comes."""
    found = data.find(marker, at)
    if found >= 0:
        return found
    return len(data) if complete else max(at, len(data) - MARKER_BYTES + 1)


def _identity_crc(version: int, described: bytes) -> int:
    return crc32(described, crc32(_CRC.pack(version)))
