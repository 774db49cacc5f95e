"""Processes that have used a chest and then fork: ``python -m forking_app HOW FOLDER``.

Each visit is named by who made it. The children end by ``os._exit``, so that nothing of ours runs at their end.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.visits import Site, make_app
from benchmarks.web_servers import wait_until
from flask import Flask

from flask_chest import FlaskChest

VISITS = 30


def visit(app: Flask, who: str) -> None:
    client = app.test_client()
    for number in range(VISITS):
        assert client.get(f"/visit/{who}-{number}").status_code == 200


def visit_anew(folder: Path) -> None:
    app, _ = make_app(Site(folder))
    visit(app, "child")


def fork_by(fork: Callable[[], int], app: Flask) -> None:
    pid = fork()
    if pid == 0:
        status = 1
        try:
            visit(app, "child")
            status = 0
        finally:
            os._exit(status)
    visit(app, "parent")
    _, status = os.waitpid(pid, 0)
    assert status == 0


def multiprocess(process: multiprocessing.process.BaseProcess, app: Flask) -> None:
    process.start()
    visit(app, "parent")
    process.join()
    assert process.exitcode == 0


def leave_an_orphan(app: Flask) -> None:
    """Fork a child that makes its visits and then lives on; end by SIGKILL once it has told its pid."""
    visit(app, "parent")
    ready, tell = os.pipe()
    if os.fork() == 0:
        visit(app, "child")
        os.write(sys.stdout.fileno(), f"{os.getpid()}\n".encode())
        os.write(tell, b".")
        signal.pause()
    os.read(ready, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def end_threads(chest: FlaskChest) -> None:
    """Stop what the chest runs: in C a process with threads that want the interpreter cannot be forked.

    The child would wait for them for ever, in CPython's own lock.
    """
    chest.close()
    tasks = Path("/proc/self/task")
    wait_until(lambda: not tasks.is_dir() or len(list(tasks.iterdir())) == 1)


def main(how: str, folder: Path) -> None:
    app, chest = make_app(Site(folder))
    visit(app, "before")
    match how:
        case "os.fork":
            fork_by(os.fork, app)
        case "libc":
            if chest._state.settings.writer == "thread":
                end_threads(chest)
            fork_by(ctypes.PyDLL(None).fork, app)  # as uWSGI forks: none of Python's hooks is called
        case "multiprocessing-fork":
            context = multiprocessing.get_context("fork")
            multiprocess(context.Process(target=visit, args=(app, "child")), app)
        case "multiprocessing-spawn":
            spawn = multiprocessing.get_context("spawn")
            multiprocess(spawn.Process(target=visit_anew, args=(folder,)), app)
        case "orphan":
            leave_an_orphan(app)
        case _:
            raise ValueError(how)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
