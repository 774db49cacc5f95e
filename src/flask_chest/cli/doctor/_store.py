"""What may be wrong with the store of a chest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta

from flask_chest.cli.doctor._clocks import wrong_clocks
from flask_chest.cli.doctor._journal import other_account
from flask_chest.errors import describe
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.report import report_of
from flask_chest.protocols import Leases


def store_unreachable(chest: FlaskChest) -> Iterator[str]:
    if other_account(chest) is not None:
        return  # what this account may do says nothing about the app's
    report = report_of(chest)
    if report.error is not None:
        yield f"The store does not answer: {report.error}"
    elif report.store is not None:
        yield from _store_unwritable(chest)


def _store_unwritable(chest: FlaskChest) -> Iterator[str]:
    store = chest._state.here.store
    if not isinstance(store, Leases):
        return
    try:
        # Writes as records do, and leaves nothing behind that matters.
        store.hold("doctor", owner=f"doctor {os.getpid()}", lease=timedelta(0))
    except Exception as exc:  # noqa: BLE001 - a third-party store may raise anything
        yield f"The store cannot be written: {describe(exc)}"
        return
    yield from wrong_clocks(chest)
