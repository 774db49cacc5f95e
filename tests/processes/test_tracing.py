"""Under real servers each process delivers its share once, on connections of its own, and traces none of it."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from benchmarks.visits import Site
from benchmarks.web_servers import gunicorn, serving, uwsgi, visit_until, wait_until
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from http_receiver import Answer, Receiver, Request
from traced_app import COLLECTOR, SPANS

APP = "traced_app:serve()"
SERVERS = {
    "gunicorn": lambda site: gunicorn(APP, site.address, "--workers=3", "--preload"),
    "gevent": lambda site: gunicorn(APP, site.address, "--workers=2", "--preload", "--worker-class=gevent"),
    "uwsgi": lambda site: uwsgi(
        APP,
        site.address,
        *("--master", "--processes=3", "--enable-threads"),
        *("--hook-master-start", "unix_signal:15 gracefully_kill_them_all"),
    ),
}


@pytest.fixture
def collector() -> Iterator[Receiver[Request]]:
    with Receiver(Request) as receiver:
        receiver.respond = lambda _: Answer(200, ExportLogsServiceResponse().SerializeToString())
        yield receiver


def uids(request: Request) -> list[str]:
    (resource,) = ExportLogsServiceRequest.FromString(request.raw).resource_logs
    events = resource.scope_logs[0].log_records
    return [
        pair.value.string_value for event in events for pair in event.attributes if pair.key == "log.record.uid"
    ]


def sender(request: Request) -> str:
    (resource,) = ExportLogsServiceRequest.FromString(request.raw).resource_logs
    (found,) = [pair.value.string_value for pair in resource.resource.attributes if pair.key == "sender"]
    return found


@pytest.mark.parametrize("server", SERVERS)
def test_processes_deliver_each_record_once_and_make_no_spans_of_it(
    site: Site, collector: Receiver[Request], server: str
) -> None:
    environ = {**site.environ, COLLECTOR: f"{collector.url}/v1/logs"}
    with serving(SERVERS[server](site), address=site.address, environ=environ) as running:
        answered = visit_until(site.address, processes=2)
        wait_until(lambda: len({uid for request in collector.requests for uid in uids(request)}) >= len(answered))
        running.send(signal.SIGTERM)
        running.wait_until_gone()
    records = site.records()
    assert Counter(uid for request in collector.requests for uid in uids(request)) == Counter(
        record.id for record in records
    )
    senders: defaultdict[int, set[str]] = defaultdict(set)
    for request in collector.requests:
        senders[request.connection].add(sender(request))
    assert all(len(processes) == 1 for processes in senders.values())
    spans = [line.split() for line in (site.folder / SPANS).read_text().splitlines()]
    assert {kind for kind, _, _ in spans} == {"SERVER"}
    assert {(trace_id, span_id) for _, trace_id, span_id in spans} == {
        (record.trace_id, record.span_id) for record in records
    }
