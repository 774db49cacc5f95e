"""The bytes of a journal: whatever is done to them, whole frames are found and none is invented."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import cast
from zlib import crc32

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from flask_chest.journal._frames import (
    COMPLETE,
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    OPENED,
    STORED_AT,
    VERSION,
    Frame,
    Header,
    Identity,
    Skipped,
    decode_record,
    encode_record,
    make_header,
    pack_passed,
    pack_stored,
    read_header,
    read_stored,
    scan,
)
from flask_chest.record import Record, same_value
from flask_chest.testing.contracts import VALUES
from flask_chest.testing.records import make_record
from journals import Reports, adopted, frame, records, version_2_header

MARKER = bytes.fromhex("c0ffee00deadbeef")
OTHER_MARKER = bytes.fromhex("0123456789abcdef")
IDENTITY = Identity(chest="chest", store="0" * 32, instance="web:0")

# What a client might send to confuse a reader: beginnings of the marker, and whole frames of another segment.
hostile = st.sampled_from(
    [MARKER[:7], MARKER[1:], MARKER[:4] * 3, frame(OTHER_MARKER, COMPLETE, b"a frame of another segment")]
)
payloads = st.lists(st.binary(min_size=1, max_size=40) | hostile, min_size=1, max_size=3).map(b"".join)
frames = st.lists(st.tuples(st.sampled_from([COMPLETE, OPENED]), payloads), max_size=6)


def segment(content: list[tuple[int, bytes]]) -> tuple[bytes, list[Frame]]:
    data = b""
    expected = []
    for kind, payload in content:
        begin = len(data)
        data += frame(MARKER, kind, payload)
        expected.append(Frame(kind=kind, payload=payload, begin=begin, end=len(data)))
    return data, expected


def found_in(data: bytes, *, complete: bool = True) -> list[Frame]:
    return [found for found in scan(data, MARKER, complete=complete) if isinstance(found, Frame)]


def content_of(found: list[Frame]) -> list[tuple[int, bytes]]:
    return [(frame.kind, frame.payload) for frame in found]


def shared(left: Iterable[int], right: Iterable[int]) -> int:
    """Return how many bytes are the same in both, from the first on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def assert_undamaged_are_found(data: bytes, undamaged: list[Frame], original: list[Frame]) -> None:
    """Assert that the *undamaged* are found in their order, and besides them nothing that never was written."""
    found = content_of(found_in(data))
    remaining = iter(found)
    assert all(frame in remaining for frame in content_of(undamaged))
    originally = iter(content_of(original))
    assert all(frame in originally for frame in found)


@pytest.mark.slow
@given(records)
def test_record_comes_back_from_its_payload(record: Record) -> None:
    assert decode_record(encode_record(record)) == record


def test_every_kind_of_value_comes_back_from_the_payload() -> None:
    for value in VALUES:
        record = make_record(variables={"v": value})
        assert same_value(decode_record(encode_record(record)).variables["v"], value)


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1])
def test_limits_of_64_bits_come_back_as_integers(value: int) -> None:
    back = decode_record(encode_record(make_record(variables={"v": value}))).variables["v"]
    assert type(back) is int
    assert back == value


def test_negative_zero_keeps_its_sign() -> None:
    back = decode_record(encode_record(make_record(variables={"v": -0.0}))).variables["v"]
    assert math.copysign(1, cast("float", back)) == -1


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\xc1", b"\x91\xa1a", encode_record(make_record())[:-1]])
def test_payload_that_holds_no_record_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_record(payload)


def test_record_of_a_later_release_with_more_fields_is_read() -> None:
    longer = msgspec.msgpack.encode([*msgspec.structs.astuple(make_record(id="here")), "a new field"])
    assert decode_record(longer).id == "here"


@given(frames)
def test_all_frames_are_found_where_they_are(content: list[tuple[int, bytes]]) -> None:
    data, expected = segment(content)
    assert list(scan(data, MARKER, complete=True)) == expected


@pytest.mark.slow
@given(frames, st.data())
def test_truncation_loses_the_frame_that_it_cuts_and_no_other(
    content: list[tuple[int, bytes]], choice: st.DataObject
) -> None:
    data, expected = segment(content)
    length = choice.draw(st.integers(0, len(data)))
    assert found_in(data[:length]) == [frame for frame in expected if frame.end <= length]


@pytest.mark.slow
@given(frames.filter(bool), st.data())
def test_flipped_bits_lose_the_frames_that_they_hit_and_no_other(
    content: list[tuple[int, bytes]], choice: st.DataObject
) -> None:
    data, expected = segment(content)
    damaged = bytearray(data)
    bits = choice.draw(st.sets(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=4))
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    hit = {bit // 8 for bit in bits}
    undamaged = [frame for frame in expected if not hit & set(range(frame.begin, frame.end))]
    assert_undamaged_are_found(bytes(damaged), undamaged, expected)


@given(frames, st.binary(max_size=60) | hostile, st.data())
def test_inserted_garbage_loses_the_frame_that_it_splits_and_no_other(
    content: list[tuple[int, bytes]], garbage: bytes, choice: st.DataObject
) -> None:
    data, expected = segment(content)
    at = choice.draw(st.integers(0, len(data)))
    undamaged = [frame for frame in expected if not frame.begin < at < frame.end]
    assert_undamaged_are_found(data[:at] + garbage + data[at:], undamaged, expected)


@pytest.mark.slow
@given(frames, st.data())
def test_removed_bytes_lose_the_frames_that_they_belonged_to_and_no_other(
    content: list[tuple[int, bytes]], choice: st.DataObject
) -> None:
    data, expected = segment(content)
    begin = choice.draw(st.integers(0, len(data)))
    end = choice.draw(st.integers(begin, len(data)))
    # What is left may be the same as if bytes further on or before had been removed: nobody can tell which were.
    after = shared(data[begin:], data[end:])
    before = shared(reversed(data[:begin]), reversed(data[:end]))
    undamaged = [frame for frame in expected if frame.end <= begin - before or frame.begin >= end + after]
    assert_undamaged_are_found(data[:begin] + data[end:], undamaged, expected)


@given(st.binary(max_size=300))
@example(MARKER)
@example(MARKER * 4)
@example(MARKER + bytes(9))
def test_in_any_bytes_no_frame_is_found(data: bytes) -> None:
    found = list(scan(data, MARKER, complete=True))
    assert all(isinstance(each, Skipped) for each in found)
    assert (found[-1].end if found else 0) == len(data)


@pytest.mark.slow
@given(frames, st.binary(max_size=30), st.data())
def test_what_is_read_in_pieces_is_what_is_read_at_once(
    content: list[tuple[int, bytes]], garbage: bytes, choice: st.DataObject
) -> None:
    data, _ = segment(content)
    at = choice.draw(st.integers(0, len(data)))
    data = data[:at] + garbage + data[at:]
    seam = choice.draw(st.integers(0, len(data)))
    first = list(scan(data[:seam], MARKER, complete=False))
    position = first[-1].end if first else 0
    second = found_in(data[position:])
    assert content_of([f for f in first if isinstance(f, Frame)]) + content_of(second) == content_of(
        found_in(data)
    )


def test_search_waits_for_the_rest_of_a_frame_that_goes_on() -> None:
    data, (frame,) = segment([(COMPLETE, b"payload")])
    for length in range(1, len(data)):
        assert list(scan(data[:length], MARKER, complete=False)) == []
        assert list(scan(data[:length], MARKER, complete=True)) == [Skipped(count=length, end=length)]
    assert found_in(data, complete=False) == [frame]


def test_frame_of_length_zero_is_corrupt() -> None:
    assert found_in(frame(MARKER, COMPLETE, b"")) == []


def test_length_beyond_the_limit_is_corrupt_and_not_waited_for() -> None:
    length = (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "little")
    head = MARKER + bytes(4) + length + bytes([COMPLETE])
    assert list(scan(head, MARKER, complete=False)) != []


def test_damaged_length_does_not_hide_the_frames_behind_it() -> None:
    data, expected = segment([(COMPLETE, b"one"), (COMPLETE, b"two"), (COMPLETE, b"three")])
    damaged = bytearray(data)
    damaged[12:16] = (len(data) * 2).to_bytes(4, "little")
    assert found_in(bytes(damaged)) == expected[1:]


def test_checksum_covers_length_and_kind() -> None:
    data, _ = segment([(COMPLETE, b"payload")])
    body = data[12:]
    assert data[8:12] == crc32(data[:8] + body).to_bytes(4, "little")
    assert len(body) == FRAME_HEAD_BYTES - 12 + len(b"payload")


def test_header_says_whose_records_a_segment_holds() -> None:
    header = make_header(IDENTITY)
    assert len(header) == HEADER_BYTES
    assert read_header(header) == Header(version=VERSION, identity=IDENTITY)
    assert read_stored(header, size=HEADER_BYTES) == HEADER_BYTES


@given(st.integers(HEADER_BYTES, 2**40), st.integers(0, 2**20), st.binary(min_size=16, max_size=16).filter(any))
def test_id_of_the_store_is_filled_into_a_header_once_it_is_known(stored: int, ahead: int, packed: bytes) -> None:
    header = bytearray(make_header(IDENTITY))
    for store_id in (packed.hex(), None):  # a later one, that does not know it, leaves it there
        passed = pack_passed(stored, stored + ahead, store_id)
        header[STORED_AT : STORED_AT + len(passed)] = passed
        assert read_header(bytes(header)) == Header(version=VERSION, identity=IDENTITY, store_id=packed.hex())
        assert read_stored(bytes(header), size=2**41) == stored


@given(st.integers(0, 127))
def test_damaged_id_of_the_store_is_not_known(bit: int) -> None:
    header = bytearray(make_header(IDENTITY, "5e" * 16))
    header[40 + bit // 8] ^= 1 << bit % 8
    assert read_header(bytes(header)) == Header(version=VERSION, identity=IDENTITY)


def test_identity_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 448 fit"):
        make_header(Identity(chest="c" * 500, store="", instance=""))


def test_header_of_another_version_says_only_that() -> None:
    header = version_2_header()
    assert read_header(header) == Header(version=2, identity=None)


@given(st.integers(0, 8 * HEADER_BYTES - 1))
def test_header_with_a_flipped_bit_is_damaged_or_says_the_same(bit: int) -> None:
    header = bytearray(make_header(IDENTITY))
    header[bit // 8] ^= 1 << bit % 8
    said = read_header(bytes(header))
    assert said in (None, Header(version=VERSION, identity=IDENTITY))
    if said is not None:  # where nothing is said, or in the stored offset
        assert bit // 8 not in range(20)


@given(st.integers(0, 2**63), st.integers(0, 8 * 12 - 1))
def test_stored_offset_with_a_flipped_bit_is_not_believed(offset: int, bit: int) -> None:
    stored = bytearray(pack_stored(offset))
    stored[bit // 8] ^= 1 << bit % 8
    header = bytes(STORED_AT) + bytes(stored)
    assert read_stored(header.ljust(HEADER_BYTES, b"\0"), size=2**64) == HEADER_BYTES


@pytest.mark.parametrize(("offset", "believed"), [(511, 512), (512, 512), (600, 600), (700, 700), (701, 512)])
def test_stored_offset_outside_the_file_is_not_believed(offset: int, believed: int) -> None:
    header = (bytes(STORED_AT) + pack_stored(offset)).ljust(HEADER_BYTES, b"\0")
    assert read_stored(header, size=700) == believed


def test_header_that_is_cut_says_nothing() -> None:
    header = make_header(IDENTITY)[:-1]
    assert read_header(header) is None
    assert read_stored(header, size=10_000) == HEADER_BYTES


OLDER_SEGMENT = zlib.decompress(
    base64.b64decode(
        "eNpLy0nOSC0u4WJkYGAwAeKg31lhDCDABCYZHM7t/cSAB1QrgfUrWUFpHaXikvyiVCAfQusoZeYVlyTmJYOEylOTrAyUahlGwaABGv8n"
        "TnkRFzwtaevZj9kggfk3VQwMLSwNEk1TdBOTLc10zc1NknSTkpNTdZOMDYwMLC0TLQxMzRcX6RqeF58+55+ZFgPjOQaxxwmL3V1DFuov"
        "zcxLSa04c2IpOK4PgEDT8tLi1KL4zBStpSX5JYk5p+0foNq9kCnVr4d4uy2Is3uFd2qla1FRftFNBYPENHMzU0NLQ7PkFBPjlBQLExOL"
        "1CQjQ8NkCwNjQ8vkDUnmiSlmSeaGZpZGBsbGxoaMhxtgjvt5r14tGOg2RuIcZ0lCwDQAAA4Ioyk="
    )
)
"""Segment of a killed process of the release before ``sample_rate``: two records, and one that streams."""


class OlderRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the release before ``sample_rate`` reads a payload as."""

    id: str
    request_id: str
    time_unix_nano: int
    duration_ns: int
    method: str
    route: str | None
    endpoint: str | None
    status_code: int
    instance: str
    error: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    trace_flags: int | None = None
    trace_remote: bool | None = None
    variables: Mapping[str, object] = {}


def test_segment_of_the_release_before_is_replayed(tmp_path: Path) -> None:
    (tmp_path / "0-00000001-28ff9194e85e5396.journal").write_bytes(OLDER_SEGMENT)
    reports = Reports()
    found = adopted(tmp_path, reports=reports)
    assert [(record.id[-4:], record.error, record.sample_rate) for record in found] == [
        ("8057", None, 1.0),
        ("8058", "KeyError", 1.0),
        ("8059", "interrupted", 1.0),
    ]
    assert found[0].variables == {"user_id": 42, "total": 0.5}
    assert found[1].trace_remote is True
    assert reports == {}


def test_release_before_reads_a_new_segment_but_for_the_rate() -> None:
    header = read_header(make_header(IDENTITY))
    assert header is not None
    assert header.version == 1  # at any other it would leave the segment to a later release
    record = make_record(error="KeyError", trace_flags=0, variables={"a": [1, 1.0, None]}, sample_rate=0.1)
    older = msgspec.msgpack.decode(encode_record(record), type=OlderRecord)
    assert all(same_value(getattr(older, name), getattr(record, name)) for name in OlderRecord.__struct_fields__)
    assert decode_record(msgspec.msgpack.encode(older)) == replace(record, sample_rate=1.0)


@pytest.mark.slow
@given(records)
def test_rate_comes_back_from_a_frame_as_the_same_double(record: Record) -> None:
    assert decode_record(encode_record(record)).sample_rate == record.sample_rate
