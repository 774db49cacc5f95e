"""What a rule hides: by name, by pattern, by the app's judgement; masked, dropped or hashed."""

from __future__ import annotations

import hashlib
import hmac
import pwd
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chest import Redact
from flask_chest.capture.explain import explanations
from flask_chest.capture.extractor import Extractor
from flask_chest.capture.redaction import MASK, NOTHING_HIDDEN, Redaction
from flask_chest.capture.tracking import TrackedNames
from flask_chest.capture.values import MAX_VALUE_BYTES, TOO_DEEP, TRUNCATED, Conversion, Encoders, ValueRules
from flask_chest.record import JSONValue
from ids import steady
from json_values import json_values

KEY = "a key of the tests"
CARD = r"\b\d{4}(?: \d{4}){3}\b"


def rules_with(
    *redact: Redact, encoders: Encoders | None = None, max_value_bytes: int = MAX_VALUE_BYTES
) -> ValueRules:
    return ValueRules(
        redaction=Redaction(redact, key=KEY), encoders=encoders or {}, max_value_bytes=max_value_bytes
    )


def kept(held: dict[str, object], *redact: Redact) -> dict[str, JSONValue]:
    capture = Extractor(TrackedNames.parse(list(held)).for_method("GET"), rules_with(*redact))
    plain = capture.plain(held)
    return plain if plain is not None else capture.convert(held).variables


def explained(held: dict[str, object], *redact: Redact, names: Sequence[str] = ()) -> list[str]:
    rules = rules_with(*redact, max_value_bytes=128)
    capture = Extractor(TrackedNames.parse([*held, *names]).for_method("GET"), rules)
    return list(explanations(capture.convert(held).variables, rules, capture.variables))


def hashed(text: str) -> str:
    return "hmac:" + hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]


@pytest.mark.parametrize(
    ("glob", "hidden", "shown"),
    [
        ("card", ["card", "cardNumber", "old-card", "CARD", "card2", "my_card_no"], ["discard", "cards", "car"]),
        ("card*", ["card", "cards", "cardigan", "my_cards"], ["discard"]),
        ("*card", ["card", "discard", "my_discard"], ["cards"]),
        ("user_id", ["user_id", "userId", "the_user_id", "User-ID"], ["user", "id", "user_name_id"]),
        ("user-id", ["user_id", "userId"], ["user"]),
        ("?", ["a", "a_bc"], ["ab"]),
    ],
)
def test_glob_is_for_whole_words_in_any_spelling(glob: str, hidden: list[str], shown: list[str]) -> None:
    redaction = Redaction([Redact(glob)])
    assert [name for name in hidden if redaction.verdict(name) is NOTHING_HIDDEN] == []
    assert [name for name in shown if redaction.verdict(name) is not NOTHING_HIDDEN] == []


def test_path_is_matched_where_a_rule_names_one() -> None:
    held: dict[str, object] = {"user": {"email": "a@b", "pet": {"email": "c@d"}}, "shop": {"email": "e@f"}}
    assert kept(held, Redact("user.email")) == {
        "user": {"email": MASK, "pet": {"email": "c@d"}},
        "shop": {"email": "e@f"},
    }
    assert kept({"user": {"pet": {"email": "c@d"}}}, Redact("user.*")) == {"user": {"pet": MASK}}


def test_dropped_is_gone_at_every_depth() -> None:
    held: dict[str, object] = {"ssn": 1, "user": {"ssn": 2, "name": "Ada"}, "list": [{"ssn": 3}, 4]}
    assert kept(held, Redact("ssn", action="drop")) == {"user": {"name": "Ada"}, "list": [{}, 4]}


def test_hash_is_the_hmac_of_the_text_or_of_the_json() -> None:
    held: dict[str, object] = {"email": "ada@example.org", "number": 7, "text": "7", "many": [1, "a"]}
    names = ["email", "number", "text", "many"]
    assert kept(held, Redact(names, action="hash")) == {
        "email": hashed("ada@example.org"),
        "number": hashed("7"),
        "text": hashed("7"),
        "many": hashed('[1,"a"]'),
    }


def test_texts_that_differ_only_beyond_the_limit_have_different_hashes() -> None:
    first, second = (
        kept({"note": "x" * MAX_VALUE_BYTES + end}, Redact("note", action="hash")) for end in ("a", "b")
    )
    assert first != second


def test_other_key_gives_another_hash() -> None:
    one, other = (Redaction(key=key).hashed("ada") for key in ("first key", "other key"))
    assert one != other


def test_pattern_hides_what_it_finds_in_every_text() -> None:
    number = "4111 1111 1111 1111"
    held: dict[str, object] = {
        "note": f"pay with {number}, please",
        "deep": [{number: [number, 5]}],
        "fine": "4111",
        "number": 4111,
    }
    assert kept(held, Redact(pattern=CARD)) == {
        "note": f"pay with {MASK}, please",
        "deep": [{MASK: [MASK, 5]}],
        "fine": "4111",
        "number": 4111,
    }
    assert kept(held, Redact(pattern=CARD, action="hash"))["note"] == f"pay with {hashed(number)}, please"
    assert kept(held, Redact(pattern=CARD, action="drop")) == {"deep": [{}], "fine": "4111", "number": 4111}


def test_pattern_may_be_for_some_names_and_what_is_in_them() -> None:
    held: dict[str, object] = {
        "note": "call 555",
        "more": "call 555",
        "notes": {"x": ["call 555"], "note": "555"},
    }
    rule = Redact("note*", pattern=r"\d+")
    assert kept(held, rule) == {
        "note": f"call {MASK}",
        "more": "call 555",
        "notes": {"x": [f"call {MASK}"], "note": MASK},
    }


def test_pattern_finds_what_the_limit_would_cut_in_its_middle() -> None:
    number = "4111 1111 1111 1111"
    text = "x" * (MAX_VALUE_BYTES - 30) + " " + number + " " + "y" * 100
    found = kept({"note": text}, Redact(pattern=CARD))["note"]
    assert isinstance(found, str)
    assert "4111" not in found
    assert found.endswith(TRUNCATED)


def test_function_judges_the_path_and_the_value() -> None:
    seen: list[tuple[str, JSONValue]] = []

    def rich(path: str, value: JSONValue) -> bool:
        seen.append((path, value))
        return isinstance(value, int) and value > 1000

    held: dict[str, object] = {"income": 5000, "user": {"income": 10, "wealth": 9999}}
    assert kept(held, Redact(when=rich)) == {"income": MASK, "user": {"income": 10, "wealth": MASK}}
    assert ("user.wealth", 9999) in seen
    assert kept(held, Redact("wealth", when=rich, action="drop")) == {"income": 5000, "user": {"income": 10}}


def test_what_the_function_cannot_judge_is_hidden_and_counted() -> None:
    def broken(_path: str, _value: JSONValue) -> bool:
        raise RuntimeError

    capture = Extractor(TrackedNames.parse(["a"]).for_method("GET"), rules_with(Redact(when=broken)))
    assert capture.convert({"a": 1}) == ({"a": MASK}, 1)


def test_first_rule_decides_and_keep_exempts() -> None:
    held: dict[str, object] = {"csrf_token": "x", "token": "y", "card": "z"}
    rules = [Redact("csrf_*", action="keep"), Redact("card", action="drop"), Redact("card")]
    assert kept(held, *rules) == {"csrf_token": "x", "token": MASK}


def test_pattern_before_a_keep_still_hides() -> None:
    held: dict[str, object] = {"token": "number 555"}
    assert kept(held, Redact(pattern=r"\d+"), Redact("token", action="keep")) == {"token": f"number {MASK}"}


@pytest.mark.parametrize("rules", [[], [Redact(pattern="x")], [Redact(when=lambda *_: False)]], ids=len)
def test_both_names_of_a_renamed_variable_count(rules: list[Redact]) -> None:
    for name, key in (("note", "password"), ("password", "note")):
        names = TrackedNames.parse([name], rename={name: key}).for_method("GET")
        held: dict[str, object] = {name: "y"}
        assert Extractor(names, rules_with(*rules)).convert(held).variables == {key: MASK}


def test_public_names_are_hidden_likewise() -> None:
    capture = Extractor(TrackedNames.parse(None).for_method("GET"), rules_with(Redact("ssn", action="drop")))
    held: dict[str, object] = {"ssn": 1, "password": "x", "fine": {"ssn": 2}}
    assert capture.convert(held).variables == {"password": MASK, "fine": {}}


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from(["a", "note", "deep"]), json_values, max_size=3), st.text("ab<>", min_size=1)
)
def test_found_text_is_nowhere_in_what_is_kept(held: dict[str, object], secret: str) -> None:
    planted = f"#{secret}#"
    held = {name: [value, {planted: f"x{planted}{planted}y"}, planted] for name, value in held.items()}
    found = kept(held, Redact(pattern=f"#{secret}#"))
    assert planted not in repr(found)


def test_encoder_makes_the_form_of_a_class_of_the_apps() -> None:
    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

    class Coin(Money):
        pass

    encoders: Encoders = {Money: lambda money: {"cents": money.cents, "token": "x"}, Decimal: float}
    capture = Extractor(TrackedNames.parse(["a", "b", "c"]).for_method("GET"), rules_with(encoders=encoders))
    held: dict[str, object] = {"a": Money(5), "b": [Coin(1), Decimal("1.5")], "c": {"d": Decimal(2)}}
    assert capture.convert(held) == (
        {"a": {"cents": 5, "token": MASK}, "b": [{"cents": 1, "token": MASK}, 1.5], "c": {"d": 2.0}},
        0,
    )


def test_encoder_that_raises_or_never_ends_costs_its_value_alone() -> None:
    class Bad:
        pass

    class Endless:
        pass

    def broken(_: Bad) -> object:
        raise RuntimeError

    encoders: Encoders = {Bad: broken, Endless: lambda endless: endless}
    capture = Extractor(TrackedNames.parse(["a", "b", "c"]).for_method("GET"), rules_with(encoders=encoders))
    assert capture.convert({"a": Bad(), "b": Endless(), "c": 1}) == (
        {"a": Bad.__qualname__, "b": TOO_DEEP, "c": 1},
        1,
    )


def test_small_limit_holds_for_plain_values_too() -> None:
    rules = ValueRules(max_value_bytes=64, max_record_bytes=100)
    capture = Extractor(TrackedNames.parse(["a", "b"]).for_method("GET"), rules)
    held: dict[str, object] = {"a": "x" * 70, "b": "y" * 60}
    assert capture.plain(held) is None
    found = capture.convert(held).variables
    assert found["a"] == "x" * (64 - len(TRUNCATED.encode())) + TRUNCATED
    assert sum(len(str(value).encode()) for value in found.values()) <= 100 + len(TRUNCATED.encode())


def test_explanation_names_the_rule_and_no_value() -> None:
    held: dict[str, object] = {
        "password": "hunter2",
        "user": {"email": "hunter2@example.org", "token": "hunter2"},
        "note": "call 555-hunter2 or 556",
        "long": "hunter2" * 100,
        "many": ["hunter2 " * 20],
        "plain": 1,
    }
    cyclic: list[object] = []
    cyclic.append(cyclic)
    held["cyclic"] = cyclic
    said = explained(
        held,
        Redact("email", action="hash"),
        Redact(pattern=r"\d{3}(-\w+)?"),
        Redact("ssn", action="drop"),
        names=["ssn"],
    )
    assert "hunter2" not in "".join(said)
    assert said == [
        said[0],
        "user.email was hashed by the rule (hash: names email)",
        said[2],
        r"note was masked by the rule (mask: pattern \d{3}(-\w+)?)",
        "long was cut: a variable has at most 128 bytes, a record 65536 (max_value_bytes, max_record_bytes)",
        "many[0] was cut: a variable has at most 128 bytes, a record 65536 (max_value_bytes, max_record_bytes)",
        "cyclic[0] holds itself",
        "ssn is never kept, by the rule (drop: names ssn)",
    ]
    assert said[0].startswith("password was masked by the rule (mask:")
    assert said[2].startswith("user.token was masked by the rule (mask:")


def test_explanation_knows_a_rule_that_is_gone() -> None:
    assert list(explanations({"ssn": MASK}, ValueRules(), ())) == [
        "ssn was masked, by a rule that no longer exists"
    ]


# Names and texts in other forms


class Address(NamedTuple):
    user: str
    password: str


def test_names_of_bytes_are_looked_at_as_text() -> None:
    held: dict[str, object] = {"session": {b"user": "ada", b"password": "x", b"\xff-token": "y", bytes(2): 1}}
    assert kept(held) == {"session": {"user": "ada", "password": MASK, "ÿ-token": MASK, "\ufffd\ufffd": 1}}


def test_fields_of_named_tuples_are_looked_at_by_name() -> None:
    user = pwd.struct_passwd(("root", "x", 0, 0, "", "/", "/bin/sh"))
    found = kept({"db": Address("app", "hunter2"), "user": user})
    assert found["db"] == {"user": "app", "password": MASK}
    assert isinstance(found["user"], dict)
    assert (found["user"]["pw_name"], found["user"]["pw_passwd"]) == ("root", MASK)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (b"pay 4111 1111 1111 1111", "pay [masked]"),
        (bytearray(b"\xff4111 1111 1111 1111"), "ÿ[masked]"),
        (memoryview(b"4111 1111 1111 1111"), MASK),
        (b"nothing", "bm90aGluZw=="),
        ([b"4111 1111 1111 1111"], [MASK]),
    ],
    ids=steady,
)
def test_pattern_is_looked_for_in_bytes(value: object, form: JSONValue) -> None:
    assert kept({"note": value}, Redact(pattern=r"\d{4}(?: \d{4}){3}")) == {"note": form}


@pytest.mark.parametrize("value", [4111111111111111, 4111111111111111.0, 41111111111111114111111111111111])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value]], ids=["alone", "in a list"])
def test_pattern_is_looked_for_in_the_digits_of_numbers(
    value: float, wrap: Callable[[object], JSONValue]
) -> None:
    (found,) = kept({"card": wrap(value)}, Redact(pattern=r"\d{16}")).values()
    assert "4111" not in repr(found)
    assert MASK in repr(found)


def test_number_without_what_a_pattern_finds_stays_a_number() -> None:
    held: dict[str, object] = {"a": 7, "b": 1.5, "c": True, "d": [7, None]}
    assert kept(held, Redact(pattern=r"\d{16}|True")) == held


def test_glob_without_a_dot_is_for_the_name_and_one_with_a_dot_for_the_path() -> None:
    held: dict[str, object] = {"user": {"user-info": {"e-mail": "x", "id": 1}}, "other": {"e-mail": "y"}}
    rules = (Redact("user.user-info.e-mail"), Redact("user_*.id", action="drop"))
    assert kept(held, *rules) == {"user": {"user-info": {"e-mail": MASK, "id": 1}}, "other": {"e-mail": "y"}}


# The time that it takes


def long_names(number: int, length: int = 124) -> dict[str, object]:
    return {f"{'a1' * length}{number}x{index}": index for index in range(20)}


def best_of(times: int, call: Callable[[int], object]) -> float:
    taken = []
    for number in range(times):
        began = time.thread_time()
        call(number)
        taken.append(time.thread_time() - began)
    return min(taken)


@pytest.mark.parametrize("rule", ["user.email", "card_*", "a*b*c_*d*e"])
def test_time_for_a_name_is_in_proportion_to_its_length(rule: str) -> None:
    redaction = Redaction([Redact(rule)])

    def look(length: int) -> float:
        return best_of(9, lambda number: [redaction.verdict(each) for each in long_names(number, length)])

    assert look(124) < 16 * look(31)  # in proportion it is 4, by its square 16


def test_name_deep_below_others_costs_no_more_than_one_above() -> None:
    rules = rules_with(Redact("user.email"))

    def nested(number: int) -> object:
        value: object = 1
        for index in range(8):
            value = {f"{'a1' * 120}{number}n{index}": value}
        return value

    def convert(value: object) -> JSONValue:
        return Conversion(rules).convert(value, objects=True, verdict=Redaction().verdict("body"))

    flat = best_of(9, lambda number: [convert({f"{'a1' * 120}{number}f{index}": 1}) for index in range(8)])
    assert best_of(9, lambda number: convert(nested(number))) < 3 * flat
