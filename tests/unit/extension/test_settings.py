"""Where a setting comes from, and what is said about a wrong one."""

from __future__ import annotations

import json
import re
import socket
from datetime import timedelta
from typing import cast

import pytest
from flask import Flask

from flask_chest import FlaskChest
from flask_chest.background.retention import RetentionPolicy
from flask_chest.capture.redaction import Redact
from flask_chest.errors import ConfigurationError
from flask_chest.extension.settings import SettingOptions, Settings, Unchecked
from flask_chest.stores.memory import MemoryStore

FIELDS = {
    *("uri", "instance", "strict", "scheduler", "tracked_vars"),
    *("journal_dir", "journal_local", "journal_bytes", "journal_sync", "writer"),
    *("response_header", "trace_url"),
    *("include", "exclude", "rename", "computed", "encoders", "indexed"),
    *("redact", "hash_key", "error_messages", "max_value_bytes", "max_record_bytes"),
    *("sample", "keep_errors", "keep_slower_than_ns"),
    *("retention", "retention_cap", "partition"),
}


def load(
    given: dict[str, object] | None = None,
    config: dict[str, object] | None = None,
    environ: dict[str, str] | None = None,
    *,
    prefix: str = "CHEST",
) -> Settings:
    return Settings.load(prefix=prefix, given=given or {}, config=config or {}, environ=environ or {})


def value_of(settings: Settings, name: str) -> object:
    value = cast("object", getattr(settings, name))
    return value.value if isinstance(value, Unchecked) else value


def values(settings: Settings) -> dict[str, object]:
    return {name: value_of(settings, name) for name in Settings.__struct_fields__ if name != "misspelt"}


def test_defaults_stand_where_nothing_is_set() -> None:
    settings = load()
    assert settings == Settings(
        uri=None,
        instance=socket.gethostname(),
        response_header=None,
        trace_url=None,
        strict=False,
        scheduler="auto",
        journal_dir=None,
        journal_bytes=256 * 1024 * 1024,
        journal_local=None,
        journal_sync=False,
        writer="thread",
        tracked_vars=None,
        include=None,
        exclude=(),
        rename={},
        computed={},
        encoders={},
        indexed=(),
        redact=(),
        hash_key=None,
        error_messages=False,
        max_value_bytes=8 * 1024,
        max_record_bytes=64 * 1024,
        sample=1.0,
        keep_errors=True,
        keep_slower_than_ns=None,
        retention=RetentionPolicy(),
        partition=None,
        retention_cap=RetentionPolicy(),
    )
    assert settings == Settings(instance=socket.gethostname())
    assert set(Settings.__struct_fields__) == FIELDS | {"misspelt"}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        load().strict = True  # type: ignore[misc]  # what the test is about


@pytest.mark.parametrize("name", ["retention", "retention_cap"])
def test_limits_of_retention_come_from_where_all_settings_come(name: str) -> None:
    key = f"CHEST_{name.upper()}"
    given: dict[str, object] = {name: "1 rows"}
    config: dict[str, object] = {key: "2 rows"}
    environ = {f"FLASK_{key}": "3 rows, 4 KB"}
    assert getattr(load(given, config, environ), name) == RetentionPolicy(rows=1)
    assert getattr(load({}, config, environ), name) == RetentionPolicy(rows=2)
    assert getattr(load({}, {}, environ), name) == RetentionPolicy(rows=3, size=4_000)


def test_cap_of_retention_is_no_age() -> None:
    with pytest.raises(ConfigurationError, match="CHEST_RETENTION_CAP limits rows and bytes, got '30d'"):
        load(config={"CHEST_RETENTION_CAP": "30d"})


@pytest.mark.parametrize(
    ("name", "constructor", "config", "environment", "read"),
    [
        ("uri", "memory:", "sqlite:///a.db", "sqlite:///b.db", "sqlite:///b.db"),
        ("instance", "one", "two", "three", "three"),
        ("response_header", "X-One", "X-Two", "X-Three", "X-Three"),
        ("trace_url", "https://a/{trace_id}", "https://b/{trace_id}", "c{trace_id}", "c{trace_id}"),
        ("strict", False, True, "true", True),
        ("scheduler", "on", "off", "auto", "auto"),
        ("journal_dir", "a", "b", "c", "c"),
        ("journal_bytes", 100_000, 200_000, "300000", 300_000),
        ("journal_local", True, False, "true", True),
        ("journal_sync", True, False, "true", True),
        ("writer", "thread", "off", "off", "off"),
        ("tracked_vars", ["a"], {"GET": ["b"]}, '{"POST": ["c"]}', {"POST": ["c"]}),
        ("rename", {"a": "b"}, {"a": "c"}, '{"a": "d"}', {"a": "d"}),
        ("hash_key", "k" * 16, "l" * 16, "m" * 16, "m" * 16),
        ("error_messages", True, False, "true", True),
        ("max_value_bytes", 100, 200, "300", 300),
        ("max_record_bytes", 10_000, 20_000, "30000", 30_000),
        ("sample", 0.1, 0.2, "0.3", 0.3),
        ("partition", "day", "week", "day", "day"),
        ("keep_errors", True, False, "false", False),
    ],
)
def test_constructor_precedes_config_precedes_environment(
    name: str, constructor: object, config: object, environment: str, read: object
) -> None:
    key = f"CHEST_{name.upper()}"
    environ = {f"FLASK_{key}": environment}
    assert value_of(load({name: constructor}, {key: config}, environ), name) == constructor
    assert value_of(load({name: None}, {key: config}, environ), name) == config
    assert value_of(load({}, {key: None}, environ), name) == read
    assert value_of(load({}, {}, environ), name) == read


@pytest.mark.parametrize(
    ("read", "names"),
    [
        (load({"indexed": ["user_id", "plan"]}), ("user_id", "plan")),
        (load({"indexed": "user_id"}), ("user_id",)),
        (load(config={"CHEST_INDEXED": ("user_id", "user_id")}), ("user_id",)),
        (load(environ={"FLASK_CHEST_INDEXED": "user_id, plan"}), ("user_id", "plan")),
        (load(environ={"FLASK_CHEST_INDEXED": '["user_id", "plan"]'}), ("user_id", "plan")),
    ],
)
def test_variables_to_be_indexed_are_a_list_or_a_text(read: Settings, names: tuple[str, ...]) -> None:
    assert read.indexed == names


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            ["user id"],
            "indexed must hold names of at most 63 ASCII letters, digits or _, none of which begins with",
        ),
        ("user_id,", "begins with a digit, got ''"),
        ("7", "begins with a digit, got '7'"),
        (["a" * 64], "indexed must hold names of at most 63"),
        ([b"a"], "got b'a'"),
        ({"user_id": 1}, "indexed must list names of variables, as in user_id,plan, got {'user_id': 1}"),
        (7, "indexed must list names of variables, as in user_id,plan, got 7"),
    ],
)
def test_name_that_cannot_be_indexed_is_refused(value: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load({"indexed": value})


def test_prefix_keeps_the_settings_of_two_chests_apart() -> None:
    config: dict[str, object] = {"CHEST_INSTANCE": "a", "AUDIT_INSTANCE": "b"}
    environ = {"FLASK_AUDIT_STRICT": "1", "AUDIT_URI": "memory:", "CHEST_URI": "memory:"}
    assert values(load(config=config, environ=environ)) == values(load()) | {"instance": "a"}
    audit = load(config=config, environ=environ, prefix="AUDIT")
    assert (audit.instance, audit.strict, audit.uri) == ("b", True, None)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_null_in_the_environment_is_not_set(name: str) -> None:
    assert values(load(environ={f"FLASK_CHEST_{name.upper()}": "null"})) == values(load())


@pytest.mark.parametrize("name", [*SettingOptions.__annotations__, "uri"])
@pytest.mark.parametrize("empty", ["", " "])
def test_empty_variable_of_the_environment_is_not_set(
    name: str, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"FLASK_CHEST_{name.upper()}"
    assert load(environ={variable: empty}) == load()
    monkeypatch.setenv(variable, empty)
    app = Flask("shop")
    app.config.from_prefixed_env()
    config = {f"CHEST_{name.upper()}": app.config[f"CHEST_{name.upper()}"]}
    assert load(environ={variable: empty}, config=config) == load()


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("hash_key", "1234567890123456", "1234567890123456"),
        ("hash_key", "0123456789012345", "0123456789012345"),
        ("hash_key", "1234567890.1234560", "1234567890.1234560"),
        ("instance", "7", "7"),
        ("instance", "1e3", "1e3"),
        ("instance", "true", "true"),
        ("instance", "NaN", "NaN"),
        ("instance", '"7"', "7"),
        ("journal_dir", "0", "0"),
        ("include", "7", ("7",)),
        ("redact", "7", (Redact("7"),)),
    ],
)
def test_text_in_the_environment_stays_a_text_whatever_it_looks_like(
    name: str, text: str, read: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {f"FLASK_CHEST_{name.upper()}": text, "FLASK_CHEST_TRACKED_VARS": "x"}
    assert value_of(load(environ=environ), name) == read
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    app = Flask("shop")
    app.config.from_prefixed_env()  # reads it as a number
    assert value_of(load(environ=environ, config=dict(app.config)), name) == read


def test_environment_is_read_as_flask_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        "FLASK_CHEST_TRACKED_VARS": '["user_id", "total"]',
        "FLASK_CHEST_STRICT": "true",
        "FLASK_CHEST_SCHEDULER": "off",
        "FLASK_CHEST_INSTANCE": '"7"',
        "FLASK_CHEST_JOURNAL_DIR": "journals",
        "FLASK_CHEST_JOURNAL_BYTES": "1000000",
        "FLASK_CHEST_URI": "sqlite:///{not json",
    }
    for key, text in environ.items():
        monkeypatch.setenv(key, text)
    app = Flask("shop")
    app.config.from_prefixed_env()
    assert values(load(environ=environ)) == values(load(config=dict(app.config)))
    assert value_of(load(environ=environ), "tracked_vars") == ["user_id", "total"]
    assert load(environ=environ).instance == "7"


@pytest.mark.parametrize("value", [True, 1, "true", "TRUE", "yes", "on", "1"])
def test_words_for_true(value: object) -> None:
    assert load({}, {"CHEST_STRICT": value}).strict is True


@pytest.mark.parametrize("value", [False, 0, "false", "No", "off", "0"])
def test_words_for_false(value: object) -> None:
    assert load({}, {"CHEST_STRICT": value}, {"FLASK_CHEST_STRICT": "true"}).strict is False


@pytest.mark.parametrize(("value", "mode"), [(True, "on"), (False, "off"), ("auto", "auto")])
def test_scheduler_is_switched_by_truth_values_too(value: object, mode: str) -> None:
    assert load({}, {"CHEST_SCHEDULER": value}).scheduler == mode


TEXT = "must be a non-empty string, got {}; where JSON is read, quote it: '\"…\"'"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("strict", "perhaps", "must be true or false, got 'perhaps'"),
        ("strict", 2, "must be true or false, got 2"),
        ("scheduler", "always", "must be one of auto, on, off, got 'always'"),
        ("scheduler", 1, "must be one of auto, on, off, got 1"),
        ("writer", "process", "must be one of thread, off, got 'process'"),
        ("journal_sync", "perhaps", "must be true or false, got 'perhaps'"),
        ("journal_bytes", 1000, "must be a number of bytes, at least 65536, got 1000"),
        ("journal_bytes", "many", "must be a number of bytes, at least 65536, got 'many'"),
        ("journal_dir", "", TEXT.format("an empty one")),
        ("journal_dir", 7, TEXT.format("a value of type int")),
        ("uri", "", TEXT.format("an empty one")),
        ("uri", 7, TEXT.format("a value of type int")),
        ("instance", "", TEXT.format("an empty one")),
        ("instance", 7, TEXT.format("a value of type int")),
        ("include", 7, "must be a list of routes (/api/*) or endpoints (shop.*), got 7"),
        ("exclude", [""], "must hold routes (/api/*) or endpoints (shop.*), got ''"),
        ("rename", ["a"], 'must map names to other names, as in {"user.id": "uid"}; got a list'),
        ("rename", {"a": 1}, 'must map names to other names, as in {"user.id": "uid"}; got \'a\': 1'),
        ("rename", {"a": "c", "b": "c"}, "gives two variables the same name, got {'a': 'c', 'b': 'c'}"),
        (
            "computed",
            {"a": 1},
            "must map names to functions without arguments, as in {\"plan\": current_plan}; got 'a': 1",
        ),
        ("encoders", [], "must map types to functions, as in {Money: str}, got []"),
        ("redact", 7, "must be a list of globs or rules, got 7"),
        ("redact", [7], "must hold globs or rules, got 7"),
        ("redact", [{"nmaes": "x"}], "has a rule with ['nmaes']; it takes names, pattern and action"),
        (
            "redact",
            [{"pattern": "("}],
            "has a wrong rule: invalid regular expression '(': missing ), unterminated subpattern at position 0",
        ),
        ("redact", [{}], "has a wrong rule: Redact() requires at least one of names, pattern or when"),
        (
            "redact",
            [{"names": "x", "action": "burn"}],
            "has a wrong rule: the action 'burn' is not one of mask, drop, hash, keep",
        ),
        ("hash_key", "short", "must be a random string of at least 16 characters"),
        ("max_value_bytes", 1, "must be a number of bytes from 64 to 1048576, got 1"),
        ("max_record_bytes", True, "must be a number of bytes from 64 to 1048576, got True"),
        ("sample", 2, "must be a number from 0 to 1, such as 0.1, or a function, got 2"),
        ("sample", "some", "must be a number from 0 to 1, such as 0.1, or a function, got 'some'"),
        ("keep_slower_than", -1, "must be a number of seconds, such as 0.5, or a timedelta, got -1"),
    ],
)
def test_wrong_value_is_said_with_its_key_and_the_way_out(name: str, value: object, message: str) -> None:
    key = f"CHEST_{name.upper()}"
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'{name} {message}')}$"):
        load({name: value})
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'{key} {message}')}$"):
        load(config={key: value})
    if value in ("", 7):
        return  # in the environment an empty variable is not set, and digits are a text
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'FLASK_{key} {message}')}$"):
        load(environ={f"FLASK_{key}": value if isinstance(value, str) else json.dumps(value)})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"include": ["/a"]},
            "include limits tracked_vars, which is not set: set it to what every route captures",
        ),
        ({"exclude": "/a"}, "exclude limits tracked_vars, which is not set"),
        (
            {"redact": [Redact("a", action="hash")]},
            "a rule in redact has action='hash', which needs a key: set CHEST_HASH_KEY",
        ),
        (
            {"max_value_bytes": 2000, "max_record_bytes": 1000},
            "max_value_bytes is 2000, but must not exceed max_record_bytes, which is 1000",
        ),
        (
            {"encoders": {str: repr}},
            "encoders has the type str, which is never converted; use a class of your own",
        ),
        ({"encoders": {"a": repr}}, "encoders must map types to functions, as in {Money: str}, got 'a'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}"):
        load(given)


def test_key_of_the_hashes_is_in_no_message_and_no_repr() -> None:
    assert "hunter2" not in repr(load({"hash_key": "hunter2hunter2hunter2"}))
    with pytest.raises(ConfigurationError) as caught:
        load({"hash_key": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_duration_may_be_a_timedelta() -> None:
    assert load({"keep_slower_than": timedelta(milliseconds=250)}).keep_slower_than_ns == 250_000_000
    assert load({}, {"CHEST_KEEP_SLOWER_THAN": 0.5}).keep_slower_than_ns == 500_000_000


def test_address_of_a_store_is_never_in_a_message() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(config={"CHEST_URI": ["postgresql://me:hunter2@db/shop"]})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CHEST_RETENTON", "CHEST_RETENTION"),
        ("CHEST_DB_URI", "CHEST_URI"),
        ("CHEST_WRITERS", "CHEST_WRITER"),
        ("CHEST_URI", None),
        ("CHEST_COLOUR", None),
        ("CHEST_AUDIT_URI", None),
        ("CHESTNUTS_URI", None),
    ],
)
def test_name_that_is_nearly_a_setting_is_told(name: str, meant: str | None) -> None:
    told = {} if meant is None else {name: meant}
    assert load(config={name: "memory:"}).misspelt == told
    assert load(environ={f"FLASK_{name}": "memory:"}).misspelt == {
        f"FLASK_{key}": f"FLASK_{value}" for key, value in told.items()
    }
    assert load(config={name: "memory:"}, prefix="OTHER").misspelt == {}


def test_prefix_of_the_environment_in_the_wrong_place_is_told() -> None:
    assert load(config={"FLASK_CHEST_RETENTION": "30d"}).misspelt == {"FLASK_CHEST_RETENTION": "CHEST_RETENTION"}
    assert load(environ={"CHEST_RETENTION": "30d"}).misspelt == {"CHEST_RETENTION": "FLASK_CHEST_RETENTION"}
    assert load(environ={"CHEST_RETENTON": "30d"}).misspelt == {"CHEST_RETENTON": "FLASK_CHEST_RETENTION"}
    handed_on = load(environ={"CHEST_RETENTION": "30d"}, config={"CHEST_RETENTION": "30d"})
    assert handed_on.misspelt == {}


def test_misspelt_setting_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = Flask("shop")
    app.config["CHEST_RETENTON"] = "30d"
    FlaskChest(app, store=MemoryStore)
    (logged,) = caplog.messages
    assert logged == "Unknown setting CHEST_RETENTON is ignored. Did you mean CHEST_RETENTION?"
