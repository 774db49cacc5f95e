"""Under waitress and Flask's own server every request that was answered is stored once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import pytest
from benchmarks.visits import APP, Site
from benchmarks.web_servers import Server, flask_run, serving, visit, visit_all, wait_until, waitress


def test_waitress_that_is_interrupted_stores_all_it_answered(site: Site) -> None:
    with serving(waitress(APP, site.address), address=site.address, environ=site.environ) as server:
        answered = visit_all(site.address, map(str, range(60)))
        server.send(signal.SIGINT)
        server.wait_until_gone()
    assert site.stored() == Counter(answered.keys())


def test_waitress_that_is_terminated_leaves_all_it_answered_to_the_next_process(site: Site) -> None:
    # Python has no handler for SIGTERM, and neither has waitress: nothing of ours runs at this end.
    with serving(waitress(APP, site.address), address=site.address, environ=site.environ) as server:
        answered = visit_all(site.address, map(str, range(60)))
        server.send(signal.SIGTERM)
        server.wait_until_gone()
    assert site.settle(answered.keys()) == Counter(answered.keys())


def test_flasks_server_stores_what_was_answered_before_and_after_a_reload(site: Site) -> None:
    with reloading(site) as (server, source):
        answered = visit_all(site.address, [f"before-{number}" for number in range(20)])
        (first_pid,) = set(answered.values())
        broken_off: set[str] = set()
        changed = time.time() + 10  # later than the last change also by the file system's clock
        os.utime(source, (changed, changed))

        def is_reloaded() -> bool:
            name = f"meanwhile-{len(answered) + len(broken_off)}"
            try:
                answered[name] = visit(site.address, name)
            except (OSError, HTTPException):  # the reloader ends the process in the midst of it
                broken_off.add(name)
                return False
            return answered[name] != first_pid

        wait_until(is_reloaded)
        answered |= visit_all(site.address, [f"after-{number}" for number in range(20)])
        server.send_to_all(signal.SIGINT)
        server.wait_until_gone()
    stored = site.settle(answered.keys())
    assert stored - Counter(broken_off) == Counter(answered.keys())
    assert all(stored[name] <= 1 for name in broken_off)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_flasks_reloader_starts_nothing_in_the_process_that_watches(site: Site) -> None:
    with reloading(site) as (server, _):
        answered = visit_all(site.address, map(str, range(20)))
        (serving_pid,) = set(answered.values())
        assert serving_pid != server.pid
        assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1
        assert files_of(server.pid, site) == set()
        assert files_of(serving_pid, site) >= {"slot-0.lock"}


@contextmanager
def reloading(site: Site) -> Iterator[tuple[Server, Path]]:
    """Run Flask's own server with its reloader; give it and the file that it watches."""
    source = site.folder / "shop.py"
    source.write_text(f"from {APP.split(':')[0]} import serve\n\napp = serve()\n")
    command = flask_run("shop", site.address, "--debug")
    with serving(command, address=site.address, environ=site.environ) as server:
        yield server, source


def files_of(pid: int, site: Site) -> set[str]:
    """Name what *pid* has open of the installation."""
    opened: set[Path] = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.add(descriptor.readlink())
    return {path.name for path in opened if path.is_relative_to(site.folder)}
