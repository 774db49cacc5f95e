"""``flask chest worker``: what the app's other processes leave to it, in the foreground."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import click

from flask_chest.cli._group import Failure, chest_group, the_chests
from flask_chest.cli._output import say
from flask_chest.cli.journal import check_account

_START_SECONDS = 1.0
"""Seconds until threads that could not be started are tried again."""
_TIMEOUT_SECONDS = 8.0
"""Seconds for an orderly end: container engines kill after 10."""


@chest_group.command("worker")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=_TIMEOUT_SECONDS,
    show_default=True,
    help="Seconds for what is under way when it is to end.",
)
def worker(*, timeout: float) -> None:
    """Store, deliver and delete for the app's other processes, until SIGTERM or SIGINT.

    For them, set CHEST_WRITER and CHEST_SCHEDULER to off: then they append to their journals, and do no more.
    The worker must see the folder of the journals, so it runs on the same machine. Several may run; each record
    is stored, and delivered, once.

    \b
    Example: flask --app shop chest worker

    Exits with 1 when something is left undone, which the next start takes up.
    """  # noqa: D301 - \b is click's mark for lines to keep
    chests = the_chests()
    for chest in chests:
        check_account(chest)
    ends = threading.Event()

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # the second one does not wait
        ends.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    for chest in chests:
        while not chest.work() and not ends.wait(_START_SECONDS):
            pass
    names = [name for chest in chests for name in chest.exporter_names]
    say(f"The worker stores what waits; exporters: {', '.join(names) or 'none'}.")
    ends.wait()
    say("The worker ends.")
    left = [chest.name for chest in chests if not chest.close(timeout)]
    if left:
        raise Failure("something is left undone; the next start takes it up")
