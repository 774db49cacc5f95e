"""What a person or an operator may ask of a chest: texts of errors, explanations, deletion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from flask import Flask, Response, g

from flask_chest import (
    CapabilityMissing,
    ConfigurationError,
    FlaskChest,
    FlaskChestSQLite,
    Redact,
    ge,
    gt,
    lt,
    one_of,
)
from flask_chest.decorator import flask_chest
from flask_chest.stores.memory import MemoryStore


class Strange(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("hunter2")


class Unasked(ValueError):
    def __str__(self) -> NoReturn:
        raise pytest.fail.Exception("nobody asked for the text")


Unasked.__name__ = "ValueError"


def errors(app: Flask, raised: BaseException, **options: object) -> list[str | None]:
    @app.route("/")
    def index() -> str:
        raise raised

    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"], **options)  # type: ignore[arg-type]  # any of them
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(app.logger, "disabled", True)  # half of a pair ends the worker that pytest runs tests in
        app.test_client().get("/")
    found = [record.error for record in chest.query()]
    chest.close()
    return found


def test_text_of_an_exception_is_kept_only_when_asked_for() -> None:
    raised = ValueError("no such user: ada2")
    assert errors(Flask("shop"), raised) == errors(Flask("shop"), Unasked()) == ["ValueError"]
    assert errors(Flask("shop"), raised, error_messages=True) == ["ValueError: no such user: ada2"]


@pytest.mark.parametrize(
    ("action", "error"), [("mask", "ValueError: no such user: [masked]"), ("drop", "ValueError")]
)
def test_patterns_hide_in_the_text_of_an_exception_too(action: str, error: str) -> None:
    rule = Redact(pattern="ada[0-9]", action=action)  # type: ignore[arg-type]  # one of them
    assert errors(Flask("shop"), ValueError("no such user: ada2"), error_messages=True, redact=rule) == [error]


def test_text_of_an_exception_is_bounded_and_may_fail() -> None:
    (long,) = errors(Flask("shop"), ValueError("x\0\ud800" * 1_000), error_messages=True)
    assert long is not None
    assert len(long) == 500
    assert long.startswith("ValueError: x\ufffd\ufffdx")
    assert errors(Flask("shop"), Strange(), error_messages=True) == ["Strange"]


def test_error_of_a_stream_is_told_in_the_same_way(app: Flask) -> None:
    @app.route("/")
    def index() -> Response:
        def body() -> Iterator[str]:
            yield "a"
            raise ValueError("hunter2")

        return Response(body())

    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"], error_messages=True)
    response = app.test_client().get("/", buffered=False)
    try:
        list(response.response)
    except ValueError:
        response.close()
    assert [record.error for record in chest.query()] == ["ValueError: hunter2"]
    chest.close()


def test_chest_explains_what_its_rules_did_to_a_record(app: Flask) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["user.email", "ssn", "note", "password"], rename={"user.email": "email"})
    def index() -> str:
        g.user, g.ssn, g.password = {"email": "hunter2"}, "hunter2", "hunter2"
        g.note = "x" * 100
        return "hi"

    rules = [Redact("user.email", action="hash"), Redact("ssn", action="drop")]
    chest = FlaskChest(app, store=MemoryStore, redact=rules, hash_key="k" * 16, max_value_bytes=64)
    app.test_client().get("/")
    (record,) = chest.query()
    said = chest.explain(record)
    chest.close()
    assert "hunter2" not in str(record.variables) + str(said)
    assert said[:2] == [
        "email was hashed by the rule (hash: names user.email)",
        "note was cut: a variable has at most 64 bytes, a record 65536 (max_value_bytes, max_record_bytes)",
    ]
    assert said[2].startswith("password was masked by the rule (mask: names apikey, authorization, bearer,")
    assert said[3:] == ["ssn is never kept, by the rule (drop: names ssn)"]


def test_chest_forgets_a_person_in_the_store_and_in_the_journal(app: Flask, tmp_path: Path) -> None:
    @app.route("/<int:user>")
    @flask_chest(tracked_vars=["user_id"])
    def index(user: int) -> str:
        g.user_id = user
        return "hi"

    chest = FlaskChestSQLite(app, db_uri=tmp_path / "db", journal_dir=tmp_path / "journal")
    for user in (7, 8, 7, 9):
        app.test_client().get(f"/{user}")
    assert chest.forget(where={"user_id": 7}) == 2
    assert chest.forget(where={"user_id": 7}) == 0
    assert sorted(str(record.variables["user_id"]) for record in chest.query()) == ["8", "9"]
    (last, _) = chest.query()
    assert chest.forget(where={}, request_id=last.request_id) == 1
    chest.close()


def test_chest_forgets_several_people_and_keeps_no_value_of_theirs(app: Flask, tmp_path: Path) -> None:
    @app.route("/<user>")
    @flask_chest(tracked_vars=["user_id"])
    def index(user: str) -> str:
        g.user_id = user
        return "hi"

    chest = FlaskChestSQLite(app, db_uri=tmp_path / "db", journal_dir=tmp_path / "journal")
    for user in ("ann", "bob", "ann", "cy"):
        app.test_client().get(f"/{user}")
    assert chest.forget(where={"user_id": one_of("ann", "bob", "nobody")}) == 3
    assert [record.variables["user_id"] for record in chest.query()] == ["cy"]
    chest.close()
    assert not any(name in (tmp_path / "db").read_bytes() for name in (b"nobody", b"bob"))


def test_where_takes_several_conditions_on_a_variable(app: Flask) -> None:
    @app.route("/<int:price>")
    @flask_chest(tracked_vars=["price"])
    def index(price: int) -> str:
        g.price = price
        return "hi"

    chest = FlaskChest(app, store=MemoryStore)
    for price in (99, 100, 199, 200):
        app.test_client().get(f"/{price}")
    found = chest.query(where={"price": (ge(100), lt(200))})
    assert [record.variables["price"] for record in found] == [199, 100]
    assert chest.query(where={"price": (ge(100), lt(50))}) == []
    assert [record.variables["price"] for record in chest.query(where={"price": gt(199)})] == [200]
    chest.close()


def test_nobody_in_particular_is_not_forgotten(app: Flask) -> None:
    chest = FlaskChest(app, store=MemoryStore)
    with pytest.raises(ConfigurationError, match="needs where= or request_id=, as in where="):
        chest.forget(where={})
    chest.close()


def test_store_that_cannot_delete_says_so(app: Flask) -> None:
    class Simple:
        def __init__(self) -> None:
            self._inner = MemoryStore()
            self.open, self.close, self.status = self._inner.open, self._inner.close, self._inner.status
            self.write, self.query = self._inner.write, self._inner.query

    chest = FlaskChest(app, store=Simple())
    with pytest.raises(CapabilityMissing, match="Simple does not implement Erasure"):
        chest.forget(where={"user_id": 7})
    chest.close()
