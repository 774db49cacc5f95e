"""Streamed responses under real servers: how long they took, what they set meanwhile, and who went away."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import closing

import pytest
from benchmarks.visits import Site
from benchmarks.web_servers import UnixHTTPConnection, gunicorn, serving, wait_until, waitress

from flask_chest import Record

APP = "streaming_app:serve()"
SERVERS: dict[str, Callable[[Site], list[str]]] = {
    "waitress": lambda site: waitress(APP, site.address),
    "gunicorn sync": lambda site: gunicorn(APP, site.address),
    "gunicorn gthread": lambda site: gunicorn(APP, site.address, "--worker-class=gthread", "--threads=2"),
    "gunicorn gevent": lambda site: gunicorn(APP, site.address, "--worker-class=gevent"),
}
every_server = pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)


def stored(site: Site, *, records: int) -> list[Record]:
    wait_until(lambda: len(site.records()) >= records)
    found = site.records()
    assert len(found) == records
    return found


@every_server
def test_stream_is_recorded_with_its_whole_duration_and_what_it_set(
    site: Site, command: Callable[[Site], list[str]]
) -> None:
    with serving(command(site), address=site.address, environ=site.environ) as server:
        with closing(UnixHTTPConnection(site.address)) as connection:
            connection.request("GET", "/slow/ada")
            response = connection.getresponse()
            assert response.read() == b"xxxx"
        (record,) = stored(site, records=1)
        server.send(signal.SIGINT)
        server.wait_until_gone()
    took = record.variables["took_ns"]
    assert isinstance(took, int)
    assert abs(record.duration_ns - took) <= 0.05 * took
    assert (record.variables["visit"], record.variables["sent"], record.status_code, record.error) == (
        "ada",
        4,
        200,
        None,
    )


@every_server
def test_client_that_goes_away_is_recorded_with_what_was_sent(
    site: Site, command: Callable[[Site], list[str]]
) -> None:
    with serving(command(site), address=site.address, environ=site.environ) as server:
        with closing(UnixHTTPConnection(site.address)) as connection:
            connection.request("GET", "/endless/ada")
            response = connection.getresponse()
            assert response.read(1) == b"x"
            response.close()
        (record,) = stored(site, records=1)
        server.send(signal.SIGINT)
        server.wait_until_gone()
    sent = record.variables["sent"]
    assert isinstance(sent, int)
    assert sent > 0
    assert record.variables["visit"] == "ada"
    assert record.error in {"ClientDisconnected", "BrokenPipeError", "ConnectionResetError"}
