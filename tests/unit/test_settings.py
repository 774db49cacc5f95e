"""Where a setting comes from, and what is said about a wrong one."""

from __future__ import annotations

import dataclasses
import re
import socket
from typing import cast

import pytest
from flask import Flask

from flask_chest.errors import ConfigurationError
from flask_chest.settings import Settings, Unchecked

FIELDS = {
    *("uri", "instance", "strict", "scheduler", "tracked_vars"),
    *("journal_dir", "journal_bytes", "journal_sync", "writer"),
    "response_header",
    "trace_url",
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
        journal_sync=False,
        writer="thread",
        tracked_vars=None,
    )
    assert {field.name for field in dataclasses.fields(settings)} == FIELDS


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().strict = True  # type: ignore[misc]  # what the test is about


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
        ("journal_sync", True, False, "true", True),
        ("writer", "thread", "off", "off", "off"),
        ("tracked_vars", ["a"], {"GET": ["b"]}, '{"POST": ["c"]}', {"POST": ["c"]}),
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


def test_prefix_keeps_the_settings_of_two_chests_apart() -> None:
    config: dict[str, object] = {"CHEST_INSTANCE": "a", "AUDIT_INSTANCE": "b"}
    environ = {"FLASK_AUDIT_STRICT": "1", "AUDIT_URI": "memory:", "CHEST_URI": "memory:"}
    assert load(config=config, environ=environ) == dataclasses.replace(load(), instance="a")
    audit = load(config=config, environ=environ, prefix="AUDIT")
    assert (audit.instance, audit.strict, audit.uri) == ("b", True, None)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_null_in_the_environment_is_not_set(name: str) -> None:
    assert load(environ={f"FLASK_CHEST_{name.upper()}": "null"}) == load()


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
    assert load(environ=environ) == load(config=dict(app.config))
    assert load(environ=environ).tracked_vars == Unchecked(["user_id", "total"], "the same")
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


TEXT = "must be a text that is not empty, got {}; where JSON is read, quote it: '\"…\"'"


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
    ],
)
def test_wrong_value_is_said_with_its_key_and_the_way_out(name: str, value: object, message: str) -> None:
    key = f"CHEST_{name.upper()}"
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'{name} {message}')}$"):
        load({name: value})
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'{key} {message}')}$"):
        load(config={key: value})
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'FLASK_{key} {message}')}$"):
        load(environ={f"FLASK_{key}": str(value)})


def test_address_of_a_store_is_never_in_a_message() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(config={"CHEST_URI": ["postgresql://me:hunter2@db/shop"]})
    assert "hunter2" not in str(caught.value)
