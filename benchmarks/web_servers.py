"""Real servers as subprocesses on a Unix socket, which needs no free port, and clients of theirs."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0
"""Seconds after which something is taken for broken; nothing here is slow."""


class Server:
    """A web server with all its processes."""

    def __init__(self, command: Sequence[str], *, address: Path, environ: Mapping[str, str]) -> None:
        self.address = address
        self._process = subprocess.Popen(
            command,
            cwd=address.parent,
            env={**_environ(address.parent), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def log(self) -> str:
        """What all its processes have said until now."""
        return "".join(self._lines)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the first process alone, as a service manager does."""
        self._process.send_signal(number)

    def send_to_all(self, number: signal.Signals) -> None:
        """Send a signal to all processes at once, as a terminal does at Ctrl-C."""
        if self._reader.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self, pid: int) -> bool:
        """Kill one process of this server; False when *pid* is none."""
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == self.pid:
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def wait_until_gone(self) -> None:
        """Wait until the last process has ended."""
        self._reader.join(PATIENCE)
        if self._reader.is_alive():
            raise TimeoutError(f"the server still runs after {PATIENCE:g} s")
        self._process.wait(PATIENCE)

    def wait_until_bound(self) -> None:
        """Wait until a client can connect; who is early waits in the queue of the socket."""

        def connects() -> bool:
            if not self._reader.is_alive():
                raise RuntimeError("the server ended at once")
            with suppress(FileNotFoundError, ConnectionRefusedError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.address))
                return True
            return False

        wait_until(connects)

    def _read(self) -> None:
        # Each process inherits the other end, so that the last line is followed by the end of the last process.
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self._lines.extend(lines)


@contextmanager
def serving(command: Sequence[str], *, address: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """Run a server on *address* while the block lasts; what is left of it at the end is killed."""
    server = Server(command, address=address, environ=environ)
    try:
        server.wait_until_bound()
        yield server
    except BaseException:
        print(server.log)
        raise
    finally:
        server.send_to_all(signal.SIGKILL)
        server.wait_until_gone()


def gunicorn(app: str, address: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "gunicorn", app, f"--bind=unix:{address}", *options]


def uwsgi(app: str, address: Path, *options: str) -> list[str]:
    quiet = ["--disable-logging", "--need-app", "--die-on-term"]
    command = str(Path(sys.executable).with_name("uwsgi"))
    return [command, "--module", app, "--http-socket", str(address), *quiet, *options]


def waitress(app: str, address: Path, *options: str) -> list[str]:
    made = ["--call", app.removesuffix("()")] if app.endswith("()") else [app]
    return [sys.executable, "-m", "waitress", f"--unix-socket={address}", *options, *made]


def flask_run(app: str, address: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "flask", "--app", app, "run", f"--host=unix://{address}", *options]


class UnixHTTPConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, address: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._address = str(address)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)


def visit(address: Path, name: str) -> int:
    """Send the request of the visit *name*; return the pid of the process that answered.

    Raises ``OSError`` or ``HTTPException`` when no whole answer came.
    """
    with closing(UnixHTTPConnection(address)) as connection:
        connection.request("GET", f"/visit/{name}", headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read().decode()
    answered, _, pid = body.partition(" ")
    if response.status != 200 or answered != name:
        raise RuntimeError(f"the visit {name} was answered by {response.status} {body!r}")
    return int(pid)


def visit_all(address: Path, names: Iterable[str], *, clients: int = 4) -> dict[str, int]:
    """Send each of the visits, all of which must be answered; return by which process."""
    names = list(names)
    with ThreadPoolExecutor(clients) as pool:
        pids = pool.map(lambda name: visit(address, name), names)
        return dict(zip(names, pids, strict=True))


def visit_until(address: Path, *, processes: int) -> dict[str, int]:
    """Send visits, all of which must be answered, until so many processes have answered."""
    answered: dict[str, int] = {}

    def all_have_answered() -> bool:
        answered.update(visit_all(address, [f"{len(answered)}-{number}" for number in range(20)]))
        return len(set(answered.values())) >= processes

    wait_until(all_have_answered)
    return answered


@contextmanager
def load(address: Path, *, clients: int) -> Iterator[dict[str, int]]:
    """Send visits without a pause while the block lasts; give those answered so far, and by which process."""
    answered: dict[str, int] = {}
    over = threading.Event()

    def run(client: int) -> None:
        for number in itertools.count():
            if over.is_set():
                return
            name = f"{client}-{number}"
            with suppress(OSError, HTTPException):  # its process was killed meanwhile
                answered[name] = visit(address, name)

    with ThreadPoolExecutor(clients) as pool:
        runs = [pool.submit(run, client) for client in range(clients)]
        try:
            yield answered
        finally:
            over.set()
        for each in runs:
            each.result()


def wait_until(happened: Callable[[], bool], *, seconds: float = PATIENCE) -> None:
    if not happens(happened, seconds=seconds):
        raise TimeoutError(f"waited {seconds:g} s in vain")


def happens(happened: Callable[[], bool], *, seconds: float) -> bool:
    """Tell whether it *happened* within that time."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _environ(folder: Path) -> dict[str, str]:
    # gunicorn has a socket of its own for gunicornc, of which two servers of a user would fight for one.
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/support"), os.environ.get("PYTHONPATH", "")]),
        "XDG_RUNTIME_DIR": str(folder),
    }
