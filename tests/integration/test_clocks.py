"""A machine whose clock is not that of its database server deletes nothing there, and no record is refused."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from flask_chest.background.retention import RetentionPolicy, RetentionReport, RetentionRun
from flask_chest.record import Query
from flask_chest.stores import store_from_uri
from flask_chest.testing import make_record
from servers import DatabaseServer

DAY_NANO = 24 * 3600 * 10**9


@pytest.mark.parametrize("kind", ["postgresql", "mysql", "mariadb", "mongodb", "documentdb"])
def test_machine_whose_clock_is_ahead_deletes_nothing_on_a_server(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: DatabaseServer = request.getfixturevalue(kind)
    with closing(store_from_uri(server.uri, root=tmp_path, name="clocks")()) as store:
        store.open()

        def retain() -> RetentionReport:
            return RetentionRun(
                store=store,
                policy=RetentionPolicy(age=timedelta(days=30), rows=100),
                cap=RetentionPolicy(),
                owner="this test",
                go_on=lambda: True,
            ).report()

        now = time.time_ns()
        ages = [make_record(time_unix_nano=now - days * DAY_NANO) for days in (0, 10, 40)]
        store.write(ages)
        real = time.time_ns
        for ahead, which in ((365, "ahead of"), (-365, "behind")):
            with monkeypatch.context() as patched:
                clock = SimpleNamespace(
                    time_ns=lambda ahead=ahead: real() + ahead * DAY_NANO,
                    monotonic=time.monotonic,
                    sleep=time.sleep,
                )
                patched.setattr("flask_chest.background.retention.time", clock)
                report = retain()
            assert (report.deleted, f"s {which} that of the store" in str(report.doubt)) == (0, True)
        # And so do its records, whose place is not that of others.
        store.write([make_record(time_unix_nano=now + 365 * DAY_NANO + number) for number in range(200)])
        assert retain() == RetentionReport(deleted=1, spared=200)
        store.write([make_record()])
        assert len(list(store.query(Query(until_unix_nano=time.time_ns() + DAY_NANO)))) == 3
