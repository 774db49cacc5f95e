"""A pytest plugin with the fixture `chest_records`.

It is for those who name it in the ``conftest.py`` at the root of their tests::

    pytest_plugins = ["flask_chest.testing.plugin"]

Nothing enters it by itself, as an entry point would: that imports Flask in every test run of the environment, and
the lines that are imported before coverage begins are not covered.
"""

from __future__ import annotations

from typing import Protocol

import pytest
from flask import Flask

from flask_chest.errors import ConfigurationError
from flask_chest.extension.chest import FlaskChest, chests_of
from flask_chest.record import Record
from flask_chest.testing.doubles import RecordedSince


class ChestRecords(Protocol):
    """What the fixture `chest_records` is."""

    def __call__(self, chest: FlaskChest | None = None, /) -> list[Record]:
        """Return what *chest*, or the app's only one, has recorded in this test until now, oldest first."""
        ...


@pytest.fixture
def chest_records(app: Flask) -> ChestRecords:
    """Return a function that returns what the chest of the fixture ``app`` has recorded in this test.

    ::

        def test_purchase_is_recorded(client, chest_records):
            client.get("/buy/hat")
            (record,) = chest_records()
            assert record.variables["item"] == "hat"

    A streamed response is recorded when it closes.
    """
    chests = chests_of(app)
    if not chests:
        raise ConfigurationError("the app of the fixture `app` has no chest: call chest.init_app(app) before")
    with app.app_context():
        since = {id(chest): RecordedSince(chest) for chest in chests}

    def records(chest: FlaskChest | None = None, /) -> list[Record]:
        if chest is None:
            if len(chests) > 1:
                raise ConfigurationError("the app has several chests: write chest_records(chest)")
            (chest,) = chests
        with app.app_context():
            return since[id(chest)].records()

    return records
