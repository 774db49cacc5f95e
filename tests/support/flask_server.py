"""Flask's own server in a process of its own, for the apps of the documents."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path


@contextlib.contextmanager
def serving(command: Sequence[str], folder: Path) -> Iterator[int]:
    """Run Flask's own server in *folder* while the block lasts; give its port."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        deadline = threading.Timer(300, process.kill)
        deadline.start()
        stack.callback(deadline.cancel)
        assert process.stderr is not None
        yield next(
            int(match[1])
            for line in process.stderr
            if (match := re.search(r"Running on http://[^:]+:(\d+)", line))
        )
        process.send_signal(signal.SIGINT)
        process.stderr.read()


def answer(port: int, path: str, method: str = "GET") -> str:
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path)
        return connection.getresponse().read().decode()
