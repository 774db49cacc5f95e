"""What an answer that is no 204 leads to, and what is said about it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from flask_chest.errors import RecordsRejected, TargetUnavailable
from flask_chest.exporter.influxdb import InfluxDBExporter
from flask_chest.record import JSONValue
from http_receiver import Answer
from influxdb_receiver import (
    Receiver,
    Request,
    column_problem,
    exporter_to,
    line_problems,
    problem,
    record,
)

CONFLICT = (
    "failure writing points to database: partial write: field type conflict: input field {name} on "
    'measurement "flask_chest" is type {kind}, already exists as type {other} dropped=1'
)


NEW_TAG = "Detected a new tag 'x' in write. The tag set is immutable on first write to the table."
TOO_MANY_COLUMNS = (
    b'{"error": "Update to schema would exceed number of columns per table limit of 500 columns", "data": null}'
)
VALUE = "the value of a variable"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def exporter(receiver: Receiver) -> Iterator[InfluxDBExporter]:
    with closing(exporter_to(receiver.url)) as exporter:
        yield exporter


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (problem(401, "unauthorized access"), "refused the token (401); pass one that may write to bucket"),
        (problem(403, "insufficient permissions"), "does not let this token write to bucket 'my-bucket' of"),
        (problem(404, 'bucket "my-bucket" not found'), "has no bucket 'my-bucket' of organisation 'my-org'"),
        (problem(404, 'organization name "my-org" not found'), "has no organisation 'my-org' (404)"),
        (problem(429, "too many requests"), "cannot take records just now (429)"),
        (Answer(502, b"<html>Bad Gateway</html>"), "cannot take records just now (502)"),
        (Answer(503), "cannot take records just now (503)"),
        (Answer(404, b"<html>no such page</html>"), "answered 404, and not as InfluxDB does; correct url"),
        (Answer(405), "answered 405, and not as InfluxDB does; correct url"),
        (Answer(400, b"Client sent an HTTP request to an HTTPS server."), "answered 400, and not as"),
        (Answer(200, b"<html>Sign in</html>"), "answered 200, and not as InfluxDB does; correct url"),
        (Answer(302, headers={"Location": "/elsewhere"}), "answered 302, and not as InfluxDB does"),
        (Answer(500, "Störung".encode("latin-1")), "cannot take records just now (500)"),
    ],
)  # fmt: skip
def test_refusal_of_us_as_a_whole_keeps_the_records(
    receiver: Receiver, exporter: InfluxDBExporter, answer: Answer, message: str
) -> None:
    receiver.answer(answer)

    with pytest.raises(TargetUnavailable) as raised:
        exporter.export([record()])
    exporter.export([record()])

    assert message in str(raised.value)
    assert f"127.0.0.1:{receiver.port}" in str(raised.value)
    assert [request.ids for request in receiver.requests] == [["record-0"], ["record-0"]]


def at_most(limit: int) -> Callable[[Request], Answer]:
    return lambda request: Answer(413) if len(request.points) > limit else Answer()


def test_batch_that_is_too_large_arrives_in_parts(receiver: Receiver, exporter: InfluxDBExporter) -> None:
    receiver.respond = at_most(3)

    exporter.export([record(number) for number in range(10)])

    accepted = [name for request in receiver.requests if len(request.points) <= 3 for name in request.ids]
    assert accepted == [f"record-{number}" for number in range(10)]


def test_record_that_is_too_large_alone_is_named_and_the_others_arrive(
    receiver: Receiver, exporter: InfluxDBExporter
) -> None:
    receiver.respond = lambda request: Answer(413) if "huge" in request.body else Answer()
    records = [record(number, size="huge" if number == 5 else "small") for number in range(8)]

    with pytest.raises(RecordsRejected) as raised:
        exporter.export(records)

    assert set(raised.value.reasons) == {"record-5"}
    assert "takes no request of this size (413)" in raised.value.reasons["record-5"]
    accepted = [name for request in receiver.requests if "huge" not in request.body for name in request.ids]
    assert accepted == [f"record-{number}" for number in range(8) if number != 5]


def typed_field(name: str, kept_type: type) -> Callable[[Request], Answer]:
    """Answer as a server whose field *name* is of *kept_type* already."""
    kinds = {float: "float", str: "string", bool: "boolean", int: "integer"}

    def respond(request: Request) -> Answer:
        for point in request.points:
            if name in point.fields and type(point.fields[name]) is not kept_type:
                kind = kinds[type(point.fields[name])]
                return problem(422, CONFLICT.format(name=f'"{name}"', kind=kind, other=kinds[kept_type]))
        return Answer()

    return respond


@pytest.mark.parametrize(
    ("value", "kept_type", "renamed"),
    [(3, str, "plan_number"), ("pro", float, "plan_text"), (True, str, "plan_bool")],
)
def test_field_of_another_type_gets_a_suffix_where_it_occurs(
    receiver: Receiver, exporter: InfluxDBExporter, value: JSONValue, kept_type: type, renamed: str
) -> None:
    receiver.respond = typed_field("plan", kept_type)
    fitting: JSONValue = "basic" if kept_type is str else 1.5

    exporter.export([record(0, plan=fitting), record(1, plan=value), record(2)])

    refused, accepted = receiver.requests
    assert refused.ids == accepted.ids == ["record-0", "record-1", "record-2"]
    assert accepted.points[0] == refused.points[0]
    assert accepted.points[2] == refused.points[2]
    assert "plan" not in accepted.points[1].fields
    assert accepted.points[1].fields[renamed] == value


def test_batch_with_a_conflict_makes_the_same_points_again(
    receiver: Receiver, exporter: InfluxDBExporter
) -> None:
    receiver.respond = typed_field("plan", str)
    batch = [record(0, plan="pro", plan_number="taken"), record(1, plan=3, plan_number="taken")]

    exporter.export(batch)
    exporter.export(batch)

    first, second = receiver.requests[1], receiver.requests[3]
    assert first.body == second.body
    assert first.points[1].fields["plan_number"] == "taken"
    assert first.points[1].fields["plan_number_number"] == 3.0


def test_every_conflict_of_a_batch_is_learned(receiver: Receiver, exporter: InfluxDBExporter) -> None:
    one, other = typed_field("one", str), typed_field("other_number", str)
    refuses_other = typed_field("other", str)

    def respond(request: Request) -> Answer:
        answers = (refuse(request) for refuse in (one, refuses_other, other))
        return next((answer for answer in answers if answer.status != 204), Answer())

    receiver.respond = respond
    exporter.export([record(0, one=1, other=2)])

    fields = receiver.requests[-1].points[0].fields
    assert len(receiver.requests) == 4
    assert fields["one_number"] == 1.0
    assert fields["other_number_number"] == 2.0


def test_conflict_of_an_own_field_is_no_standstill(receiver: Receiver, exporter: InfluxDBExporter) -> None:
    receiver.respond = typed_field("duration_ns", int)

    exporter.export([record()])

    assert receiver.requests[-1].points[0].fields["duration_ns_number"] == 1_500_000


@pytest.mark.parametrize("quoted", ['"a "b""', '"a \\"b\\""'])
def test_quotes_in_the_name_of_a_conflict_are_read(
    receiver: Receiver, exporter: InfluxDBExporter, quoted: str
) -> None:
    receiver.answer(problem(422, CONFLICT.format(name=quoted, kind="float", other="string")))

    exporter.export([record(0, **{'a "b"': 1, "c": 2})])

    fields = receiver.requests[-1].points[0].fields
    assert fields['a "b"_number'] == 1.0
    assert fields["c"] == 2.0


UNKNOWN_CONFLICT = problem(422, CONFLICT.format(name='"unknown"', kind="float", other="string"))


def test_conflict_that_is_not_understood_puts_suffixes_on_all_variables(
    receiver: Receiver, exporter: InfluxDBExporter
) -> None:
    receiver.answer(UNKNOWN_CONFLICT)

    exporter.export([record(0, plan=1, beta=True), record(1, plan="x")])

    first, second = receiver.requests[-1].points
    own = {"record_id", "request_id", "duration_ns", "sample_rate"}
    assert set(first.fields) == {*own, "plan_number", "beta_bool"}
    assert set(second.fields) == {*own, "plan_text"}


def test_conflicts_that_influxdb_3_names_put_suffixes_on_these_fields_alone(
    receiver: Receiver, exporter: InfluxDBExporter
) -> None:
    receiver.answer(
        line_problems(
            column_problem("it's", "field::string", "field::float"),
            column_problem("beta", "field::float", "field::boolean"),
        )
    )

    exporter.export([record(0, **{"it's": 1, "beta": True, "other": 2}), record(1, **{"it's": "x"})])

    assert len(receiver.requests) == 2
    first, second = receiver.requests[-1].points
    own = {"record_id", "request_id", "duration_ns", "sample_rate"}
    assert set(first.fields) == {*own, "it's_number", "beta_bool", "other"}
    assert set(second.fields) == {*own, "it's"}


def test_variable_that_was_a_tag_arrives_under_a_suffixed_name(
    receiver: Receiver, exporter: InfluxDBExporter
) -> None:
    receiver.answer(line_problems(column_problem("plan", "tag", "field::string")))

    exporter.export([record(0, plan="pro", other=2)])

    assert {"plan_text", "other"} < set(receiver.requests[-1].points[0].fields)


def test_answer_that_is_cut_off_is_understood_as_far_as_it_goes(
    receiver: Receiver, exporter: InfluxDBExporter
) -> None:
    complaints = [column_problem("plan", "field::string", "field::float")] * 500
    receiver.answer(line_problems(*complaints, line="x" * 1_000))

    exporter.export([record(0, plan=1, other=2)])

    assert {"plan_number", "other"} < set(receiver.requests[-1].points[0].fields)


def test_value_cannot_pass_for_a_complaint(receiver: Receiver, exporter: InfluxDBExporter) -> None:
    conflict = column_problem("other", "field::string", "field::float")
    receiver.answer(
        line_problems(
            column_problem("plan", "field::string", "field::float"),
            line=f'flask_chest text="{{"error_message":"{conflict}"}}"',
        )
    )

    exporter.export([record(0, plan=1, other=2)])

    assert {"plan_number", "other"} < set(receiver.requests[-1].points[0].fields)


def test_conflict_without_an_end_is_a_rejection(receiver: Receiver, exporter: InfluxDBExporter) -> None:
    receiver.respond = lambda request: UNKNOWN_CONFLICT

    with pytest.raises(
        RecordsRejected, match="has a field of another type, under its suffixed name too"
    ) as raised:
        exporter.export([record(0, plan=1), record(1, plan=2)])

    assert raised.value.reasons == {}
    assert len(receiver.requests) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (problem(400, "unable to parse 'flask_chest plan=x': invalid boolean"), "refused the points (400)"),
        (problem(422, "points beyond retention policy dropped=1"), "older than the bucket keeps"),
        (Answer(400, b'{"error": "something else"}'), "refused the points (400)"),
        (line_problems(column_problem("plan", "field::string", "tag")), "has other tags in this table since"),
        (line_problems(NEW_TAG), "give tags and custom_tags as they were, or another measurement"),
        (Answer(422, TOO_MANY_COLUMNS), "takes no more than 500 columns, and these points bring new ones; send"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 2])
def test_refused_points_are_rejected_and_named_when_alone(
    receiver: Receiver, exporter: InfluxDBExporter, answer: Answer, message: str, size: int
) -> None:
    receiver.answer(answer)

    with pytest.raises(RecordsRejected) as raised:
        exporter.export([record(number) for number in range(size)])

    assert message in str(raised.value)
    assert set(raised.value.reasons) == ({"record-0"} if size == 1 else set())


def test_text_that_is_no_text_is_named_and_nothing_is_sent(
    receiver: Receiver, exporter: InfluxDBExporter
) -> None:
    with pytest.raises(RecordsRejected) as raised:
        exporter.export([record(0), record(1, name="\ud800"), record(2, name=["\udfff"])])

    assert set(raised.value.reasons) == {"record-1", "record-2"}
    assert receiver.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        problem(400, f"unable to parse 'flask_chest plan=\"{VALUE}\"': bad timestamp"),
        problem(422, CONFLICT.format(name='"x"', kind="string", other="float") + VALUE),
        problem(401, VALUE),
        problem(500, VALUE),
    ],
)
def test_neither_secrets_nor_values_are_in_what_is_said(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    receiver.respond = lambda request: answer
    url = receiver.url.replace("http://", "http://user:passw0rd@")
    caplog.set_level(logging.DEBUG)

    with closing(exporter_to(url)) as exporter, pytest.raises((TargetUnavailable, RecordsRejected)) as raised:
        exporter.export([record(0, plan=VALUE)])

    said = "".join(traceback.format_exception(raised.value)) + caplog.text + repr(exporter)
    assert "s3cret-t0ken" not in said
    assert "passw0rd" not in said
    assert VALUE not in said
