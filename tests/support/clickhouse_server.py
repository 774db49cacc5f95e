"""A server of ClickHouse for tests: its engine behind a front, in a process that can be killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

FRONT = Path(__file__).with_name("clickhouse_front.py")
PATIENCE = 60.0


class Server:
    """The engine in a process of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port: int = free.getsockname()[1]
        self.folder = folder
        self.uri = f"clickhouse://127.0.0.1:{self.port}/chest?compress=false"
        self.start()

    def start(self, *, config: Path | None = None) -> None:
        command = [sys.executable, str(FRONT), str(self.folder), str(self.port)]
        command += [] if config is None else [str(config)]
        self.process = subprocess.Popen(command)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
