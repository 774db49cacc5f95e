"""Before any test module is read: the contracts' assertions are to explain themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# On a machine with other work an example takes as long as it takes: that is no fault of what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

pytest.register_assert_rewrite(
    "flask_chest.testing", "http_receiver", "influxdb_receiver", "json_values", "server_contract", "servers"
)


@pytest.fixture(autouse=True)
def journal_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where chests without a folder of their own keep their journals: never in the checkout."""
    folder = tmp_path / "journals"
    monkeypatch.setenv("FLASK_CHEST_JOURNAL_DIR", str(folder))
    return folder
