"""Before any test module is read: the contracts' assertions are to explain themselves."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# On a machine with other work an example takes as long as it takes: that is no fault of what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell starts background jobs with this signal ignored, and what a test interrupts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite(
    "flask_chest.testing",
    "http_receiver",
    "index_sql_contract",
    "influxdb_receiver",
    "json_values",
    "server_contract",
    "servers",
    "view_contract",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what needs real servers and processes."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] in {"integration", "processes"}:
            item.add_marker(pytest.mark.slow)


def pytest_xdist_auto_num_workers() -> int:
    """Run one worker more than there are cores: tests wait for time-outs, servers and processes."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def journal_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where chests without a folder of their own keep their journals: never in the checkout."""
    folder = tmp_path / "journals"
    monkeypatch.setenv("FLASK_CHEST_JOURNAL_DIR", str(folder))
    return folder


class Lines(logging.Handler):
    """Keeps every line that flask_chest logs, as it would be printed, with the causes of what is raised."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if Path(record.pathname).parts[-2:-1] != ("support",):  # what a test says is its own business
            self.lines.append(self.format(record))


SECRETS = ("s3cret", "t0ken", "passw0rd", "hunter2", "pa/ss", "t0p-secret-value")
"""What the tests use as passwords and tokens, and as values that must not be seen."""


@pytest.fixture(autouse=True)
def no_secret_is_logged() -> Iterator[None]:
    """Let no test pass in which a password, a token or a value was logged."""
    handler = Lines()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    assert [line for line in handler.lines if any(secret in line for secret in SECRETS)] == []
